"""Run `bt train`: settings and data in, a Hugging Face folder out, with a run in it that can be continued.

    TrainSettings -> prepare: model, data, checks -> Prepared -> train_model -> TrainResult

Imports the other modules of training, checkpoints, and of the encoders the choice of device and precision.
"""
