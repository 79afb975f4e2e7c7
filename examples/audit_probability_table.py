"""Audit a table of probabilities, as XGBoost's predict_proba or another system gives them: no model needed here.

Differs from audit_sklearn.py by one thing: predictions come from a file. `relaxloss audit predictions.csv` does it too.
"""

import pandas as pd
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split

from relaxloss.auditing.audit import run
from relaxloss.auditing.readers import read

# the system that exports the table
x, y = load_digits(return_X_y=True)
inside, outside = train_test_split(range(len(y)), test_size=0.5, random_state=0)
model = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(x[inside], y[inside])
table = pd.DataFrame(model.predict_proba(x), columns=[f"prob_{digit}" for digit in model.classes_])
table.insert(0, "label", y)
table.insert(1, "member", pd.Series(range(len(y))).isin(inside))
table.to_csv("predictions.csv", index_label="id")

# the auditor
report = run(read("predictions.csv"), name="digits")
print(report.worst)
print(report.records.head(10))
report.to_html("audit.html")
