from typing import List

from .types import Resource, Tensor


class Sink(Resource):
    async def send(self, outputs: List[Tensor]) -> None:
        await self._get().send(outputs)
