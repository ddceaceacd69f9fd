/*!
The collector of Inquest and the commands on what it collected.

Data flows down this list and is never handed back up: [`follow`] reads
journals, [`ledger`] knows what was merged, [`story`] folds events, [`verdict`]
judges stories with the help of [`slurm`], [`logs`] finds the root cause in a
job's log, [`runs`] groups jobs, [`store`] keeps runs on disk, [`report`] shows
them, [`recover`] plans to run jobs again, [`cli`] is what a person types.
[`collect`] is the one loop that moves the data. [`agent`] runs on a node and
only writes a journal. [`check`] says what is wrong with an installation.
[`serve`] shows what is stored to everybody who may see it, and [`export`] hands
it to other tools; [`mcp`] is what an assistant's client speaks. [`config`] is the
file that says how both of them run.
*/

/// In place of the standard library's, which panics where nobody reads standard error any more, as a daemon's whose
/// journald has crashed. It stands before the modules, so that it holds in all of them.
macro_rules! eprintln {
    ($($said:tt)*) => {{
        let said = format_args!($($said)*);
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{said}\n"));
    }};
}

pub mod agent;
pub mod check;
pub mod cli;
pub mod collect;
pub mod config;
pub mod export;
pub mod follow;
pub mod ledger;
pub mod logs;
pub mod mcp;
pub mod recover;
pub mod report;
mod roff;
pub mod runs;
pub mod serve;
pub mod slurm;
pub mod store;
pub mod story;
pub mod units;
pub mod verdict;
mod zone;
