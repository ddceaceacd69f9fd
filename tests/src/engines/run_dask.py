"""Two workers of dask-jobqueue; one is killed with its nanny by the task that runs in it."""
import os
import time

from dask.distributed import Client
from dask_jobqueue import SLURMCluster


def die():
    os.kill(os.getppid(), 9)
    time.sleep(60)


if __name__ == "__main__":
    cluster = SLURMCluster(
        cores=1,
        memory="400MB",
        walltime="00:05:00",
        interface="lo",
        local_directory="scratch",
        log_directory="logs",
        job_extra_directives=["--export=ALL"],
    )
    cluster.scale(jobs=2)
    with Client(cluster) as client:
        client.wait_for_workers(2, timeout=90)
        workers = list(client.scheduler_info()["workers"])
        print(client.submit(lambda n: n * n, 3, workers=[workers[0]]).result(timeout=60))
        client.submit(die, workers=[workers[1]])
        deadline = time.monotonic() + 60
        while len(client.scheduler_info()["workers"]) > 1 and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(2)
    cluster.close()
