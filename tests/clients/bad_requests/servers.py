"""Two servers with the same models: Hostler and a real Triton. Both can be checked and restarted on
the same ports.
"""

import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

from . import wire

ROOT = pathlib.Path(__file__).parents[3]
# Models that both servers have, and the ONNX files that Hostler uses for them.
MODELS = {"simple": "add_sub", "numbers": "identity", "texts": "texts", "datatypes": "datatypes", "int8": "int8"}
STREAMING = "repeat"
START_SECONDS_MAX = 60
# Triton's stubs sometimes make it exit during its start.
STARTS_MAX = 60
# A body for `simple` that both servers accept.
GOOD = wire.infer([wire.tensor("INPUT0", "INT32", [1, 16], [1] * 16), wire.tensor("INPUT1", "INT32", [1, 16], [2] * 16)])


def free_ports(count):
    """All ports are reserved at once, so that they differ."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Server:
    def __init__(self, folder):
        self.folder = folder
        self.http, self.grpc = free_ports(2)
        self.child = None
        self.starts = 0
        self.log = folder / "log"

    def command(self):
        raise NotImplementedError

    def start(self):
        self.starts += 1
        with open(self.log, "ab") as log:
            # The server is killed when this program ends, however that happens.
            self.child = subprocess.Popen(
                self.command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent,
                # A separate process group: Triton's Python backends outlive a crashed Triton.
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS_MAX
        while not self.is_well():
            if self.child.poll() is not None and self.starts < STARTS_MAX:
                return self.restart()
            if self.child.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{self.name} did not start:\n{self.said()}")
            time.sleep(0.02)

    def wait(self):
        """Waits until the server is well."""
        until = time.monotonic() + START_SECONDS_MAX
        while not self.is_well():
            if time.monotonic() > until:
                raise SystemExit(f"{self.name} is not well:\n{self.said()}")
            time.sleep(0.02)

    def said(self):
        return self.log.read_text(errors="replace")[-4000:]

    def died(self):
        """Returns the exit status of the process, or None while it runs."""
        return self.child.poll()

    def is_well(self):
        """Returns whether it runs, is ready, and still answers correctly after a case."""
        if self.died() is not None:
            return False
        ready = wire.http(self.http, "GET", "/v2/health/ready")
        answer = wire.http(self.http, "POST", "/v2/models/simple/infer", body=GOOD)
        return ready.status == 200 and answer.status == 200 and b"[3" in answer.body

    def stop(self):
        if self.child is not None:
            try:
                os.killpg(self.child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.child.wait()
            self.child = None

    def restart(self):
        self.stop()
        self.start()


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Triton(Server):
    name = "Triton"

    def __init__(self, folder, program, control):
        super().__init__(folder)
        self.program, self.control = program, control
        for model in [*MODELS, STREAMING]:
            place = folder / "models" / model
            (place / "1").mkdir(parents=True)
            source = ROOT / "tests/triton" / model
            shutil.copy(source / "config.pbtxt", place / "config.pbtxt")
            shutil.copy(source / "model.py", place / "1/model.py")

    def command(self):
        models = [f"--load-model={model}" for model in [*MODELS, STREAMING]] if self.control == "explicit" else []
        return [
            self.program, f"--model-repository={self.folder / 'models'}", f"--model-control-mode={self.control}", *models,
            "--http-address=127.0.0.1", f"--http-port={self.http}", "--grpc-address=127.0.0.1", f"--grpc-port={self.grpc}",
            "--allow-metrics=false", "--exit-timeout-secs=1", f"--backend-config=python,shm-region-prefix-name={self.memory()}",
        ]

    def memory(self):
        """The prefix of its shared memory names."""
        return f"hostler_bad_{self.http}_{self.starts}_"

    def stop(self):
        super().stop()
        # Stubs that are killed do not remove their shared memory.
        for region in pathlib.Path("/dev/shm").glob(self.memory() + "*"):
            region.unlink(missing_ok=True)


class Hostler(Server):
    name = "Hostler"

    def __init__(self, folder, program, control, triton):
        super().__init__(folder)
        self.program = program
        manifest = f'[server]\nhttp = "127.0.0.1:{self.http}"\ngrpc = "127.0.0.1:{self.grpc}"\nmodel_control = "{control}"\n'
        for model, file in MODELS.items():
            shutil.copy(ROOT / f"tests/models/{file}.onnx", folder / f"{model}.onnx")
            manifest += f'[models.{model}]\npath = "{model}.onnx"\n'
        # The streaming model is Triton's own, behind Hostler.
        manifest += f'[executors.remote]\nkind = "triton"\nurl = "127.0.0.1:{triton.grpc}"\n'
        manifest += f'[models.{STREAMING}]\nremote = {{ name = "{STREAMING}" }}\n'
        (folder / "hostler.toml").write_text(manifest)

    def command(self):
        return [self.program, "serve", "hostler.toml", "--admin", "127.0.0.1:0"]
