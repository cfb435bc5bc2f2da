"""vaekit's model and its SVM as scikit-learn has estimators."""
