"""The workers of a cluster in place of this machine's cores: Dask or Ray, by way of joblib."""

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import joblib

from vaekit.errors import UserError

SECONDS_TO_ANSWER = 5.0
_DASK = re.compile(r"dask://(.+:\d+)")


@contextmanager
def on_cluster(address: str | None) -> Iterator[None]:
    """Have the workers of a cluster do what `joblib.Parallel` is given in the block.

    `address` is dask://HOST:PORT, that of a scheduler; or ray, for the cluster that this machine is
    part of or RAY_ADDRESS names; None stands for this machine's cores. Workers need vaekit, too.
    Raises `UserError` for another address, and where nothing answers.
    """
    if address is None:
        yield
    elif address == "ray":
        with _ray():
            yield
    elif found := _DASK.fullmatch(address):
        with _dask(address, f"tcp://{found[1]}"):
            yield
    else:
        raise UserError(
            f"--cluster {address}: expected dask://HOST:PORT, as dask://node-0:8786, or ray"
        )


@contextmanager
def _dask(address: str, scheduler: str) -> Iterator[None]:
    try:
        from distributed import Client
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker
    except ModuleNotFoundError as error:
        raise _missing(address, "dask") from error
    try:
        with ThreadPoolExecutor(1) as thread:  # a notebook has a loop of its own in this one
            thread.submit(asyncio.run, _meet(scheduler)).result()
        client = Client(scheduler, timeout=SECONDS_TO_ANSWER, set_as_default=False)
    except (OSError, MemoryError) as error:
        raise UserError(
            f"--cluster {address}: no Dask scheduler answers there within "
            f"{SECONDS_TO_ANSWER:g} seconds; start one with `dask scheduler`, and its workers with "
            f"`dask worker {scheduler}`, or leave --cluster out"
        ) from error
    with client:
        if not client.nthreads():
            raise UserError(
                f"--cluster {address}: that scheduler has no workers; start them with "
                f"`dask worker {scheduler}`"
            )
        try:
            with joblib.parallel_config("dask", client=client):
                yield
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("vaekit"):
                raise
            raise UserError(
                f"--cluster {address}: its workers find no vaekit; install there what is here"
            ) from error
        except (FutureCancelledError, KilledWorker) as error:
            raise _lost(address, error) from error


async def _meet(scheduler: str) -> None:
    """Raise `OSError` where nothing answers, and `MemoryError` where it is no scheduler.

    The first bytes that another server sends are taken for a length. A `Client` that fails so is
    never closed.
    """
    from distributed.comm.core import connect

    comm = await connect(scheduler, timeout=SECONDS_TO_ANSWER)
    await comm.close()


@contextmanager
def _ray() -> Iterator[None]:
    try:
        import ray
        from ray.exceptions import RayError
        from ray.util.joblib import register_ray
    except ModuleNotFoundError as error:
        raise _missing("ray", "ray") from error
    is_callers = ray.is_initialized()
    try:
        if not is_callers:
            ray.init(address="auto", logging_level="error", log_to_driver=False)
    except ConnectionError as error:
        raise UserError(
            "--cluster ray: no Ray cluster is found from here; start one with `ray start --head`, "
            "name one with RAY_ADDRESS, or leave --cluster out"
        ) from error
    register_ray()
    try:
        with joblib.parallel_config("ray"):
            yield
    except RayError as error:
        raise _lost("ray", error) from error
    finally:
        if not is_callers:
            ray.shutdown()


def _lost(address: str, error: Exception) -> UserError:
    return UserError(
        f"--cluster {address}: a worker or the scheduler was lost ({type(error).__name__}); see to "
        f"it there, and give the same command again"
    )


def _missing(address: str, extra: str) -> UserError:
    return UserError(
        f"--cluster {address}: {extra} is not installed; `pip install 'vaekit[{extra}]'`, here and "
        f"where its workers run"
    )
