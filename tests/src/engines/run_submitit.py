"""An array of four with submitit; the one with index 2 fails."""
import submitit


def fit(n):
    if n == 2:
        raise ValueError(f"cannot fit {n}")
    return n * n


executor = submitit.AutoExecutor(folder="logs", cluster="slurm")
executor.update_parameters(timeout_min=5, mem_gb=0.3, name="fit")
print(executor.map_array(fit, range(4))[0].job_id)
