/*
 * The part of Slurm's SPANK interface that Inquest uses, in our own words.
 *
 * Why not Slurm's own spank.h: one plugin file serves every release of Slurm
 * from 20.11 on, so it must be built without any release installed. What is
 * written here has been the same in all of them: the item numbers since 19.05,
 * the option struct and the calling conventions for longer. A test compares
 * every value with the spank.h of the machine when there is one.
 *
 * Names have a prefix of their own (spk_, SPK_), so that both headers can be
 * included in one file. Enumerations appear as unsigned int and int, which is
 * how the C compilers of Linux pass them.
 *
 * Sources: spank(7) and plugstack.conf(5) of Slurm, spank.h of 22.05 to 26.05.
 */
#ifndef INQUEST_SPANK_ABI_H
#define INQUEST_SPANK_ABI_H

/* What every hook is given; its inside belongs to Slurm. */
struct spank_handle;
typedef struct spank_handle *spk_handle;

/* Every hook. 0 is success; this plugin never returns anything else. */
typedef int (*spk_hook)(spk_handle spank, int ac, char **av);

/* Where a hook runs. */
enum spk_context {
	SPK_CTX_ERROR = 0,
	SPK_CTX_LOCAL = 1,	/* srun */
	SPK_CTX_REMOTE = 2,	/* slurmstepd */
	SPK_CTX_ALLOCATOR = 3,	/* sbatch, salloc, scrun */
	SPK_CTX_SLURMD = 4,	/* slurmd */
	SPK_CTX_JOB_SCRIPT = 5	/* "slurmstepd spank prolog|epilog" */
};

/* What spank_get_item() can be asked for, with what it writes to. */
enum spk_item {
	SPK_JOB_UID = 0,		/* uid_t * */
	SPK_JOB_GID = 1,		/* gid_t * */
	SPK_JOB_ID = 2,			/* uint32_t * */
	SPK_JOB_STEPID = 3,		/* uint32_t * */
	SPK_JOB_NNODES = 4,		/* uint32_t *; 0 in the batch step */
	SPK_JOB_NODEID = 5,		/* uint32_t * */
	SPK_JOB_LOCAL_TASK_COUNT = 6,	/* uint32_t * */
	SPK_JOB_TOTAL_TASK_COUNT = 7,	/* uint32_t *; 0 in the batch step */
	SPK_JOB_NCPUS = 8,		/* uint16_t * */
	SPK_JOB_ARGV = 9,		/* int *, char *** */
	SPK_JOB_ENV = 10,		/* char *** */
	SPK_TASK_ID = 11,		/* int * */
	SPK_TASK_GLOBAL_ID = 12,	/* uint32_t * */
	SPK_TASK_EXIT_STATUS = 13,	/* int *, a raw wait status */
	SPK_TASK_PID = 14,		/* pid_t * */
	SPK_SLURM_VERSION = 20,		/* char ** */
	SPK_JOB_ALLOC_CORES = 25,	/* char **, a list such as 0-3,8 */
	SPK_JOB_ALLOC_MEM = 26,		/* uint64_t *, MiB */
	SPK_STEP_ALLOC_CORES = 27,	/* char ** */
	SPK_STEP_ALLOC_MEM = 28,	/* uint64_t *, MiB */
	SPK_JOB_ARRAY_ID = 30,		/* uint32_t * */
	SPK_JOB_ARRAY_TASK_ID = 31	/* uint32_t *; SPK_NO_VAL outside an array */
};

/* Slurm's "no value" for an unsigned 32 bit number (slurm.h, NO_VAL). */
#define SPK_NO_VAL 0xfffffffeU

/*
 * An option of sbatch, salloc and srun. The callback is given `val`, the
 * argument, and whether it runs in slurmstepd.
 */
typedef int (*spk_option_callback)(int val, const char *optarg, int remote);
struct spk_option {
	char *name;
	char *arginfo;
	char *usage;
	int has_arg;
	int val;
	spk_option_callback cb;
};

/*
 * Slurm's functions, as types: none is linked. Each is looked up by name when
 * the plugin runs, and one that is missing means a fact that is absent.
 */

/* spank_get_item: 0 and a value, or an error number and an undefined value. */
typedef int (*spk_get_item_fn)(spk_handle spank, unsigned int item, ...);
/* spank_context */
typedef unsigned int (*spk_context_fn)(void);
/* spank_option_register: allowed in slurm_spank_init only. Copies the struct. */
typedef int (*spk_option_register_fn)(spk_handle spank, struct spk_option *opt);
/* spank_setenv, spank_unsetenv: the environment of the step's tasks, in slurmstepd before they are forked. */
typedef int (*spk_setenv_fn)(spk_handle spank, const char *name, const char *value, int overwrite);
typedef int (*spk_unsetenv_fn)(spk_handle spank, const char *name);
/* slurm_api_version: the API number is in bits 16 to 23. */
typedef long (*spk_api_version_fn)(void);
/*
 * slurm_info, slurm_error: printf-like. In slurmstepd slurm_error also
 * reaches the user's standard error, slurm_info does not.
 */
typedef void (*spk_log_fn)(const char *format, ...);

#endif
