from dataclasses import dataclass
from typing import List

from ..imports.types import TensorSpec


@dataclass
class StreamingMetadata:
    inputs: List[TensorSpec]
    outputs: List[TensorSpec]
    streaming: bool
