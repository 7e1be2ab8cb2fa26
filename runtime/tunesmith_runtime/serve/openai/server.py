"""The OpenAI server of the engine transformers: start-up, readiness and draining."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import signal
import threading
from collections.abc import Iterator

import numpy
import uvicorn

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import RunFailure
from tunesmith_runtime.modelcheck.config import CONFIG, read_config
from tunesmith_runtime.serve.config import ServeConfig
from tunesmith_runtime.serve.generation.loop import Loop, Piece, Row
from tunesmith_runtime.serve.generation.model import load
from tunesmith_runtime.serve.generation.sampling import Sampling
from tunesmith_runtime.serve.generation.speech import load_speech
from tunesmith_runtime.serve.openai.app import Service, create_app
from tunesmith_runtime.serve.openai.remote_pictures import RemotePictures
from tunesmith_runtime.serve.openai.transcriptions import Transcriber
from tunesmith_runtime.serve.probes import ProbeServer
from tunesmith_runtime.tasks import is_speech
from tunesmith_runtime.train.device import find_device

log = logging.getLogger(__name__)

WARM_UP_PROMPT = "Hello"


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: on SIGTERM the service drains instead of closing its port."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(config: ServeConfig) -> None:
    """Answer requests until SIGTERM, then finish those in progress.

    /health answers while the model loads; /ready once every model name has generated a token.
    Raises RunFailure if the model cannot be loaded or generates nothing, or if the port is taken.
    """
    asyncio.run(_serve(config))


async def _serve(config: ServeConfig) -> None:
    service = Service(config.names, config.api_key, remote=RemotePictures(config.allowed_hosts))
    # log_config=None: uvicorn's own handlers would bypass the formatter that redacts secrets
    server = _Server(
        uvicorn.Config(
            create_app(service), config.host, config.port, log_config=None, log_level="warning", access_log=False
        )
    )
    stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _settle, stop, None)
    probes = ProbeServer(config.host, config.ready_port, lambda: service.ready)
    serving = asyncio.ensure_future(_run_server(server, config.port))
    threading.Thread(target=_load, args=(config, service, stop), name="load", daemon=True).start()
    await asyncio.wait({stop, serving}, return_when=asyncio.FIRST_COMPLETED)
    service.draining = True
    if stop.done() and stop.exception() is None:
        log.info("draining: no longer ready, finishing the requests in progress")
        await asyncio.sleep(config.linger_seconds)
    server.should_exit = True
    try:
        await serving
        await stop
    finally:
        probes.close()


async def _run_server(server: uvicorn.Server, port: int) -> None:
    """Serve until `server.should_exit`. Raises RunFailure if the port cannot be opened."""
    try:
        await server.serve()
    except SystemExit as error:  # uvicorn exits if it cannot bind
        raise RunFailure(FailureClass.ENGINE_FAILED, f"port {port} cannot be opened: something else uses it") from error


def _load(config: ServeConfig, service: Service, stop: asyncio.Future[None]) -> None:
    """Load the model, generate a token for every model name, and mark the service ready; settle `stop` on failure."""
    try:
        device = find_device(config.accelerator).name
        if (config.model / CONFIG).is_file() and is_speech(read_config(str(config.model), config.model)):
            service.transcriber = _load_speech(config, device)
            return
        model = load(config.model, config.adapters, config.max_length, config.trust_remote_code, device)
        loop = Loop(model.forward, model.decode, model.eos, model.tokens.specials)
        loop.start()
        for name, adapter in config.names.items():
            _generate_token(loop, model.encode(WARM_UP_PROMPT), name, adapter)
        service.model, service.loop = model, loop
        log.info("loaded: %s, at most %d tokens", ", ".join(config.names), model.max_length)
    except Exception as error:  # noqa: BLE001  # raised again by the main thread, which ends the process
        stop.get_loop().call_soon_threadsafe(_settle, stop, error)


def _load_speech(config: ServeConfig, device: str) -> Transcriber:
    """Load a speech model, and write down a second of silence for every model name."""
    model = load_speech(config.model, config.adapters, config.trust_remote_code, device)
    for adapter in config.names.values():
        silence = numpy.zeros(model.processor.rate, numpy.float32)
        model.write(silence, model.language(silence, adapter), adapter)
    log.info("loaded: %s, which hears %g s at a time", ", ".join(config.names), model.processor.window_seconds)
    return Transcriber(model)


def _generate_token(loop: Loop, prompt: list[int], name: str, adapter: str | None) -> None:
    """Generate a token. Raises RunFailure (EngineFailed) if that fails."""
    pieces: queue.Queue[Piece] = queue.Queue()
    loop.submit([Row(prompt, 1, Sampling(temperature=0), adapter, (), pieces.put)])
    if (error := pieces.get().error) is not None:
        raise RunFailure(FailureClass.ENGINE_FAILED, f"the model {name} cannot generate a token: {error}")


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if not future.done():
        future.set_result(None) if error is None else future.set_exception(error)
