"""The asyncio client."""

import asyncio

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from expect import ADDRESS, LEFT, equal, said
from tritonclient.utils import InferenceServerException


async def ask(client, number):
    tensors = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    tensors[0].set_data_from_numpy(LEFT, binary_data=number % 2 == 0)
    tensors[1].set_data_from_numpy(np.full((1, 16), number, np.int32), binary_data=number % 3 == 0)
    ways = dict(request_compression_algorithm=(None, "gzip", "deflate")[number % 3])
    result = await client.infer("simple", tensors, request_id=str(number), **ways)
    equal("id", result.get_response()["id"], str(number))
    equal("difference", result.as_numpy("OUTPUT1"), LEFT - number)


async def main():
    async with triton_aio.InferenceServerClient(ADDRESS) as client:
        equal("live", await client.is_server_live(), True)
        equal("ready", [await client.is_server_ready(), await client.is_model_ready("simple")], [True, True])
        equal("name", (await client.get_model_metadata("simple"))["name"], "simple")
        await asyncio.gather(*(ask(client, number) for number in range(100)))
        try:
            await client.infer("simpel", [])
        except InferenceServerException as error:
            said("a wrong model", error, "unknown model")
        else:
            raise SystemExit("a wrong model was found")


asyncio.run(main())
