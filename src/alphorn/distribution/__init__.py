"""Several devices and several hosts: what lies where. Nothing else in a program changes."""

from alphorn.distribution.current import distribution
from alphorn.distribution.mesh import (
    DeviceMesh,
    LayoutMap,
    TensorLayout,
    get_device_count,
    list_devices,
)
from alphorn.distribution.placing import distribute_tensor
from alphorn.distribution.processes import initialize
from alphorn.distribution.strategies import DataParallel, ModelParallel, set_distribution

__all__ = [
    "DataParallel",
    "DeviceMesh",
    "LayoutMap",
    "ModelParallel",
    "TensorLayout",
    "distribute_tensor",
    "distribution",
    "get_device_count",
    "initialize",
    "list_devices",
    "set_distribution",
]
