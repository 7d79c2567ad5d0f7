"""The asyncio client: calls, a stream, a cancelled call."""

import asyncio

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from expect import ADDRESS, LEFT, equal, said
from tritonclient.utils import InferenceServerException


def inputs(number):
    tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    tensors[0].set_data_from_numpy(LEFT)
    tensors[1].set_data_from_numpy(np.full((1, 16), number, np.int32))
    return tensors


async def ask(client, number):
    ways = dict(compression_algorithm=(None, "gzip", "deflate")[number % 3])
    result = await client.infer("simple", inputs(number), request_id=str(number), **ways)
    equal("id", result.get_response().id, str(number))
    equal("difference", result.as_numpy("OUTPUT1"), LEFT - number)


async def requests(count):
    for number in range(count):
        yield {"model_name": "simple", "inputs": inputs(number), "request_id": str(number)}


async def main():
    async with triton_aio.InferenceServerClient(ADDRESS) as client:
        equal("live", await client.is_server_live(), True)
        equal("ready", [await client.is_server_ready(), await client.is_model_ready("simple")], [True, True])
        equal("name", (await client.get_model_metadata("simple")).name, "simple")
        await asyncio.gather(*(ask(client, number) for number in range(100)))
        number = 0
        async for result, error in client.stream_infer(requests(20)):
            equal("error", error, None)
            equal("id", result.get_response().id, str(number))
            equal("difference", result.as_numpy("OUTPUT1"), LEFT - number)
            number += 1
        equal("answers", number, 20)
        call = asyncio.create_task(client.infer("simple", inputs(0)))
        await asyncio.sleep(0)
        call.cancel()
        try:
            await client.infer("simpel", [])
        except InferenceServerException as error:
            said("a wrong model", error, "simpel")
        else:
            raise SystemExit("a wrong model was found")


asyncio.run(main())
