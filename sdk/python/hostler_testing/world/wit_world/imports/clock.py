from hostler_testing._environment import current


async def sleep(time_us: int) -> None:
    await current().sleep_async(time_us)
