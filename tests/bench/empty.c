/* The least that a SPANK plugin can be: the same hooks as ours, doing nothing.
 * What it costs is Slurm's own price for having any plugin at all. */
#include <slurm/spank.h>

SPANK_PLUGIN(empty, 1)

int slurm_spank_init(spank_t sp, int ac, char **av) { return 0; }
int slurm_spank_init_post_opt(spank_t sp, int ac, char **av) { return 0; }
int slurm_spank_task_post_fork(spank_t sp, int ac, char **av) { return 0; }
int slurm_spank_task_exit(spank_t sp, int ac, char **av) { return 0; }
int slurm_spank_exit(spank_t sp, int ac, char **av) { return 0; }
