"""Engine transformers: the OpenAI API over the model's own forward, in this process. For CPUs, and for any model that it knows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import signal
import threading
from collections.abc import Iterator

import uvicorn

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.serve.generation.loop import Loop, Piece, Row
from tunesmith_runtime.serve.generation.model import load
from tunesmith_runtime.serve.generation.sampling import Sampling
from tunesmith_runtime.serve.openai.app import Service, create_app
from tunesmith_runtime.serve.readiness import Probes
from tunesmith_runtime.serve.served import Served
from tunesmith_runtime.train.device import find_device

log = logging.getLogger(__name__)

START_UP_PROMPT = "Hello"


class _Server(uvicorn.Server):
    """uvicorn, with SIGTERM left to us: it is to drain, not to close the door at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(served: Served) -> None:
    """Answer requests until SIGTERM, then let the running ones finish.

    /health answers while the model loads, /ready when every model name has generated a token.
    Raises RunFailure where the model cannot be loaded, generates nothing, or the port is taken.
    """
    asyncio.run(_serve(served))


async def _serve(served: Served) -> None:
    service = Service(served.names, served.api_key)
    # log_config: uvicorn's own handlers would write past the formatter that redacts
    config = uvicorn.Config(
        create_app(service), served.host, served.port, log_config=None, log_level="warning", access_log=False
    )
    server = _Server(config)
    stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _settle, stop, None)
    probes = Probes(served.host, served.ready_port, lambda: service.ready)
    serving = asyncio.ensure_future(_serving(server, served.port))
    threading.Thread(target=_load, args=(served, service, stop), name="load", daemon=True).start()
    await asyncio.wait({stop, serving}, return_when=asyncio.FIRST_COMPLETED)
    service.draining = True
    if stop.done() and stop.exception() is None:
        log.info("draining: no longer ready, finishing what runs")
        await asyncio.sleep(served.linger)
    server.should_exit = True
    try:
        await serving
        await stop
    finally:
        probes.close()


async def _serving(server: uvicorn.Server, port: int) -> None:
    """Serve until `server.should_exit`. Raises RunFailure where the port cannot be opened."""
    try:
        await server.serve()
    except SystemExit as error:  # uvicorn's way to say so
        raise RunFailure(FailureClass.ENGINE_FAILED, f"port {port} can't be opened: something else uses it") from error


def _load(served: Served, service: Service, stop: asyncio.Future[None]) -> None:
    """In a thread of its own: load the model, generate a token by every name, and say that it is ready."""
    try:
        device = find_device(served.accelerator).name
        model = load(served.model, served.adapters, served.max_length, served.trust_remote_code, device)
        loop = Loop(model.forward, model.decode, model.eos, model.tokens.specials)
        loop.start()
        for name, adapter in served.names.items():
            _try_out(loop, model.encode(START_UP_PROMPT), name, adapter)
        service.model, service.loop = model, loop
        log.info("loaded: %s, at most %d tokens", ", ".join(served.names), model.max_length)
    except Exception as error:  # noqa: BLE001  # the main thread ends the process with it
        stop.get_loop().call_soon_threadsafe(_settle, stop, error)


def _try_out(loop: Loop, prompt: list[int], name: str, adapter: str | None) -> None:
    """Generate one token. Raises RunFailure (EngineFailed) where that fails."""
    pieces: queue.Queue[Piece] = queue.Queue()
    loop.submit([Row(prompt, 1, Sampling(temperature=0), adapter, (), pieces.put)])
    if (error := pieces.get().error) is not None:
        raise RunFailure(FailureClass.ENGINE_FAILED, f"the model {name} can't generate a token: {error}")


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if not future.done():
        future.set_result(None) if error is None else future.set_exception(error)
