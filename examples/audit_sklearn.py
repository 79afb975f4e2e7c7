"""Audit a scikit-learn model: the estimator and its data in, shadows of its own kind fitted, one page out."""

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import train_test_split

from relaxloss.integrations.sklearn import audit_estimator

x, y = load_breast_cancer(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.5, random_state=0)
model = GradientBoostingClassifier(max_depth=5, random_state=0).fit(x_train, y_train)

for shadows in (0, 16):
    report = audit_estimator(model, x_train, y_train, x_test, y_test, shadows=shadows, name="boosting on breast cancer")
    worst = report.worst
    print(f"{shadows} shadows: {worst['attack']}: AUC {worst['auc']:.3f}", end=" ")
    print(f"({worst['auc_low']:.3f} to {worst['auc_high']:.3f})")
print(report.to_html("audit.html"))
