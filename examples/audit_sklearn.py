"""Audit a scikit-learn model: predictions on its training data and on held-out data in, one page out."""

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import train_test_split

import relaxloss as rl

x, y = load_breast_cancer(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.5, random_state=0)
model = GradientBoostingClassifier(max_depth=5, random_state=0).fit(x_train, y_train)

report = rl.audit(
    member_probs=model.predict_proba(x_train),
    member_labels=y_train,
    nonmember_probs=model.predict_proba(x_test),
    nonmember_labels=y_test,
    name="gradient boosting on breast cancer",
)
worst = report.worst
print(f"{worst['attack']}: AUC {worst['auc']:.3f} ({worst['auc_low']:.3f} to {worst['auc_high']:.3f})")
print(report.to_html("audit.html"))
