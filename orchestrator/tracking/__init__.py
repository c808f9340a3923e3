"""The tracker: shows a study in MLflow. No other folder imports mlflow."""
