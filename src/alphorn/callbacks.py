"""Callbacks: what is done between the steps and epochs of training."""

from alphorn.training.backup import BackupAndRestore
from alphorn.training.callbacks import (
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    History,
    LambdaCallback,
    LearningRateScheduler,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from alphorn.training.checkpoints import ModelCheckpoint
from alphorn.training.orbax import OrbaxCheckpoint
from alphorn.training.profile import EpochProfile, Profile
from alphorn.training.progress import ProgressBar as ProgbarLogger
from alphorn.viz.tensorboard import TensorBoard

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "EpochProfile",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "OrbaxCheckpoint",
    "Profile",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
]
