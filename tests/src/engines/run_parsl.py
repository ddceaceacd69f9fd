"""Two executors of one block each with Parsl: `cpu` works, `gpu` has no module to load."""
import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SrunLauncher
from parsl.providers import SlurmProvider


def executor(label, worker_init):
    return HighThroughputExecutor(
        label=label,
        address="127.0.0.1",
        max_workers_per_node=1,
        provider=SlurmProvider(
            partition="main",
            walltime="00:05:00",
            scheduler_options="#SBATCH --mem=500M",
            worker_init=worker_init,
            launcher=SrunLauncher(),
            exclusive=False,
            cores_per_node=1,
            init_blocks=1,
            max_blocks=1,
        ),
    )


config = Config(
    executors=[executor("cpu", ""), executor("gpu", "echo no such module >&2; exit 3")],
    strategy="none",
    initialize_logging=True,
)


@parsl.python_app(executors=["cpu"])
def square(n):
    return n * n


with parsl.load(config):
    print([square(n).result() for n in range(3)])
    # What the other block ended with is seen when Parsl looks at its jobs next.
    failed = config.executors[1]
    import time

    for _ in range(60):
        if any(s.terminal for s in failed.status().values()):
            break
        time.sleep(1)
