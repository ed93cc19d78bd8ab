"""Fine-tuning while the robot works: actors record episodes, one learner reads them and publishes better models."""
