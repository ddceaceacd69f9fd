/*!
One small file per workflow engine: a pure function from what an event says of
a job to the id of the engine's run. An engine looks only at what it is known
to write itself; each file names where that was read.

The engine that knows an id of its own comes before the one that it is built
on: parade submits with batchtools, Hydra with submitit.
*/

mod airflow;
mod batchtools;
mod cromwell;
mod dask;
mod hydra;
mod mlflow;
mod nextflow;
mod parade;
mod parallel;
mod parsl;
mod ray;
mod scalable;
mod snakemake;
mod submitit;
mod torc;
mod wandb;

use super::evidence::Evidence;
use super::key::Candidate;

/// How one engine is recognised.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    /// Its name, the first part of its runs' ids.
    pub name: &'static str,
    /// The run that an event speaks of.
    pub find: fn(&Evidence<'_>) -> Option<Candidate>,
}

/// All engines. Of two that give keys of one kind, the first decides.
pub const ENGINES: &[Engine] = &[
    Engine { name: "parade", find: parade::find },
    Engine { name: "torc", find: torc::find },
    Engine { name: "airflow", find: airflow::find },
    Engine { name: "snakemake", find: snakemake::find },
    Engine { name: "nextflow", find: nextflow::find },
    Engine { name: "cromwell", find: cromwell::find },
    Engine { name: "parsl", find: parsl::find },
    Engine { name: "hydra", find: hydra::find },
    Engine { name: "submitit", find: submitit::find },
    Engine { name: "future", find: batchtools::find_future },
    Engine { name: "batchtools", find: batchtools::find },
    Engine { name: "dask", find: dask::find },
    Engine { name: "ray", find: ray::find },
    Engine { name: "scalable", find: scalable::find },
    Engine { name: "wandb", find: wandb::find },
    Engine { name: "parallel", find: parallel::find },
    Engine { name: "mlflow", find: mlflow::find },
];

#[cfg(test)]
mod tests;
