/*!
The node agent: what only a process that watches the whole node can see of its
jobs. It is optional; the plugin never needs it, and it never needs the plugin
to tell which job a process belongs to where Slurm names cgroups by job id.
*/

mod cgroup;
mod netlink;
mod taskstats;
