/*
 * Plays slurmstepd, slurmd, srun and sbatch to a SPANK plugin, from a script.
 *
 *   host PLUGIN.so SCRIPT REPORT
 *
 * Loads the plugin as Slurm does (dlopen RTLD_LAZY, local scope), answers its
 * calls with what the script has set, and calls its hooks in the order of the
 * script. Descriptors 0, 1 and 2 are left to whoever started it, so that a
 * byte that the plugin puts there is seen; everything there is to say goes to
 * the file REPORT, one line each.
 *
 * Lines of the script (STR is the rest of the line; \n, \\ and \xHH in it are
 * unescaped; # starts a comment):
 *
 *   api N                the API number of slurm_api_version()
 *   context N            what spank_context() says
 *   arg STR              an argument of the plugin
 *   u16|u32|u64|int ITEM N, str ITEM STR     an item's value
 *   fail ITEM N          an item that answers with error N, after scribbling
 *   null ITEM            an item that answers 0 and a null pointer
 *   argv STR, env STR    the command and the environment of the job
 *   own STR              a variable of this process itself, which is all that a prolog or epilog has
 *   bigenv, bigown KEY BYTE N    the same, of N equal bytes
 *   load                 dlopen, and what the loader checks
 *   init, exit, post_fork, prolog, epilog    a hook without a task
 *   option NAME VALUE    what the user gave, as in slurmstepd
 *   fork LOCAL GLOBAL STR    forks a task that will run STR by sh, post_fork, lets it run
 *   null                 /dev/null on descriptors 0 and 1, as slurmstepd has it
 *   out STR              the file of following tasks' descriptors 1 and 2, instead of /dev/null
 *   late US              following tasks put their descriptors in place only so much later, and not
 *                        before post_fork
 *   cgroup DIR           the directory that following tasks are put into
 *   reap LOCAL           waits for the task, task_exit
 *   task_exit LOCAL PID STATUS               the hook alone
 *   contain 0|1          hooks run in a clone with shared memory, as with contain_spank
 *   close_from N         closes descriptors from N on (not the report's)
 *   repeat N / again     what is between is done N times
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../include/spank_abi.h"

#define ITEMS 32
#define TASKS 512
#define STRINGS 4096
#define ESPANK_NOT_TASK 3002
#define ESPANK_BAD_ARG 3001

enum kind { UNSET, U16, U32, U64, INT, STR, FAIL, NULLED };
static struct { enum kind kind; uint64_t number; char *text; } items[ITEMS];
static long api = 38;
static char *task_out;
static useconds_t late;
static unsigned context_now;
static char *args[STRINGS], *job_argv[STRINGS], *job_env[STRINGS];
static int nargs, njob_argv, njob_env;
static struct spk_option options[8];
static int noptions;
static struct { pid_t pid; unsigned global; int go; int status; } tasks[TASKS];
static const char *cgroup;
static int task_now = -1, exited_now, contained;
static FILE *report;
static int report_fd;
static char handle_memory[64];

static void die(const char *what, const char *arg)
{
	fprintf(report, "host: %s: %s\n", what, arg);
	fflush(report);
	_exit(70);
}

/* What Slurm exports, unless the test wants a Slurm that lacks it. */

long slurm_api_version(void) { return api << 16; }

#ifndef BARE
unsigned spank_context(void) { return context_now; }

int spank_get_item(spk_handle h, unsigned item, ...)
{
	va_list ap;
	int rc = 0;

	if ((void *) h != handle_memory || item >= ITEMS)
		return ESPANK_BAD_ARG;
	va_start(ap, item);
	if (items[item].kind == FAIL) {
		/* Slurm may have written something before it fails. */
		*va_arg(ap, uint16_t *) = 0xbeef;
		rc = (int) items[item].number;
	} else if (item == SPK_JOB_ARGV) {
		int *argc = va_arg(ap, int *);
		char ***argv = va_arg(ap, char ***);
		*argc = njob_argv;
		*argv = items[item].kind == NULLED ? NULL : job_argv;
	} else if (item == SPK_JOB_ENV) {
		*va_arg(ap, char ***) = items[item].kind == NULLED ? NULL : job_env;
	} else if (items[item].kind == NULLED) {
		*va_arg(ap, void **) = NULL;
	} else if (item == SPK_TASK_ID && items[item].kind == UNSET) {
		*va_arg(ap, int *) = task_now;
		rc = task_now < 0 ? ESPANK_NOT_TASK : 0;
	} else if (item == SPK_TASK_GLOBAL_ID && items[item].kind == UNSET) {
		if (task_now < 0)
			rc = ESPANK_NOT_TASK;
		else
			*va_arg(ap, uint32_t *) = tasks[task_now].global;
	} else if (item == SPK_TASK_PID && items[item].kind == UNSET) {
		*va_arg(ap, pid_t *) = task_now < 0 ? 0 : tasks[task_now].pid;
		rc = task_now < 0 ? ESPANK_NOT_TASK : 0;
	} else if (item == SPK_TASK_EXIT_STATUS && items[item].kind == UNSET) {
		if (task_now < 0 || !exited_now)
			rc = ESPANK_NOT_TASK;
		else
			*va_arg(ap, int *) = tasks[task_now].status;
	} else switch (items[item].kind) {
	case U16: *va_arg(ap, uint16_t *) = (uint16_t) items[item].number; break;
	case U32: *va_arg(ap, uint32_t *) = (uint32_t) items[item].number; break;
	case U64: *va_arg(ap, uint64_t *) = items[item].number; break;
	case INT: *va_arg(ap, int *) = (int) items[item].number; break;
	case STR: *va_arg(ap, char **) = items[item].text; break;
	default: rc = ESPANK_BAD_ARG; break;
	}
	va_end(ap);
	return rc;
}

int spank_option_register(spk_handle h, struct spk_option *opt)
{
	if ((void *) h != handle_memory || !opt || !opt->name || !opt->usage || noptions == 8)
		return ESPANK_BAD_ARG;
	options[noptions] = *opt;
	options[noptions].name = strdup(opt->name);
	noptions++;
	fprintf(report, "registered %s\n", opt->name);
	return 0;
}

int spank_setenv(spk_handle h, const char *name, const char *value, int overwrite)
{
	if ((void *) h != handle_memory || !overwrite)
		return ESPANK_BAD_ARG;
	fprintf(report, "setenv %s=%s\n", name, value);
	return 0;
}

int spank_unsetenv(spk_handle h, const char *name)
{
	if ((void *) h != handle_memory)
		return ESPANK_BAD_ARG;
	fprintf(report, "unsetenv %s\n", name);
	return 0;
}

static void say(const char *level, const char *format, va_list ap)
{
	fprintf(report, "%s ", level);
	vfprintf(report, format, ap);
	fprintf(report, "\n");
	fflush(report);
}

void slurm_info(const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	say("info", format, ap);
	va_end(ap);
}

void slurm_error(const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	say("error", format, ap);
	va_end(ap);
}

void slurm_spank_log(const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	say("spank_log", format, ap);
	va_end(ap);
}
#endif

/* The plugin. */

static void *plugin;
enum { INIT, POST_OPT, POST_FORK, TASK_EXIT, EXIT, PROLOG, EPILOG, HOOKS };
static spk_hook hook_of[HOOKS];
static const char *const hook_names[HOOKS] = {
	"slurm_spank_init", "slurm_spank_init_post_opt", "slurm_spank_task_post_fork", "slurm_spank_task_exit",
	"slurm_spank_exit",
	"slurm_spank_job_prolog", "slurm_spank_job_epilog",
};

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}

static long rss_kib(void)
{
	long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	if (f && fscanf(f, "%*d %ld", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void load(const char *path)
{
	static const char *const forbidden[] = {
		"init", "fini", "slurm_spank_task_init", "slurm_spank_task_init_privileged",
		"slurm_spank_user_init", "slurm_spank_local_user_init", "slurm_spank_slurmd_exit",
	};
	long before = rss_kib();

	plugin = dlopen(path, RTLD_LAZY);
	if (!plugin)
		die("dlopen", dlerror());
	const char *name = dlsym(plugin, "plugin_name"), *type = dlsym(plugin, "plugin_type");
	const unsigned *version = dlsym(plugin, "plugin_version");
	if (!name || !type || !version)
		die("missing", "plugin_name, plugin_type or plugin_version");
	fprintf(report, "loaded %s %s 0x%06x\n", name, type, *version);
	for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
		if (dlsym(plugin, forbidden[i]))
			fprintf(report, "forbidden %s\n", forbidden[i]);
	/* One object is for steps, another for a job's prolog and epilog, and neither does the other's work. */
	const int of_jobs = dlsym(plugin, hook_names[PROLOG]) != NULL;
	for (int i = 0; i < HOOKS; i++) {
		hook_of[i] = (spk_hook) dlsym(plugin, hook_names[i]);
		if (hook_of[i] && (i >= PROLOG) != of_jobs)
			fprintf(report, "forbidden %s\n", hook_names[i]);
		if (!hook_of[i] && (i >= PROLOG) == of_jobs)
			die("missing", hook_names[i]);
	}
	fprintf(report, "rss_kib %ld\n", rss_kib() - before);
}

struct call { spk_hook hook; int rc; };

static int in_clone(void *arg)
{
	struct call *call = arg;
	call->rc = call->hook((spk_handle) handle_memory, nargs, args);
	return 0;
}

static void run(int which)
{
	struct call call = { hook_of[which], -99 };
	struct rusage before, after;
	/* Options come after init and before this, which comes before whatever is next. */
	static int due;

	if (which == INIT) {
		due = 1;
	} else if (due) {
		due = 0;
		run(POST_OPT);
	}
	if (!call.hook)
		die("no such hook in this plugin", hook_names[which]);
	getrusage(RUSAGE_SELF, &before);
	uint64_t from = now_ns();
	if (contained && which != POST_OPT) {
		/* As Slurm: shared memory, a copy of the descriptors, 1 MB of stack. */
		const size_t size = 1 << 20;
		char *stack = malloc(size);
		pid_t pid = clone(in_clone, stack + size, CLONE_VM | SIGCHLD, &call);
		int status = 0;
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
			fprintf(report, "clone status %d\n", status);
		free(stack);
	} else {
		in_clone(&call);
	}
	uint64_t took = now_ns() - from;
	getrusage(RUSAGE_SELF, &after);
	fprintf(report, "rc %s %d\n", hook_names[which], call.rc);
	fprintf(report, "ns %s %llu faults %ld\n", hook_names[which], (unsigned long long) took,
		after.ru_minflt - before.ru_minflt);
	fflush(report);
}

static void fork_task(int local, unsigned global, const char *command)
{
	int wait_here[2];

	int in_place[2];
	char byte;

	if (local < 0 || local >= TASKS || pipe2(wait_here, O_CLOEXEC) != 0 || pipe2(in_place, O_CLOEXEC) != 0)
		die("fork", command);
	fflush(report);
	pid_t pid = fork();
	if (pid < 0)
		die("fork", strerror(errno));
	if (pid == 0) {
		close(wait_here[1]);
		usleep(late);
		int null = open("/dev/null", O_RDWR);
		int out = task_out ? open(task_out, O_WRONLY | O_APPEND | O_CREAT, 0644) : null;
		if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
			_exit(73);
		close(in_place[1]);
		/* The parent's hook runs first, as in slurmstepd. */
		if (read(wait_here[0], &byte, 1) != 1)
			_exit(71);
		execl("/bin/sh", "sh", "-c", command, (char *) NULL);
		_exit(72);
	}
	close(wait_here[0]);
	close(in_place[1]);
	/* Slurm does not wait for this, and the hook may come first. */
	if (!late && read(in_place[0], &byte, 1) != 0)
		die("fork", "the task says something");
	close(in_place[0]);
	if (cgroup) {
		char path[4096];
		snprintf(path, sizeof path, "%s/cgroup.procs", cgroup);
		FILE *procs = fopen(path, "we");
		if (!procs || fprintf(procs, "%d", pid) < 0 || fclose(procs) != 0)
			die("cgroup", path);
	}
	tasks[local].pid = pid;
	tasks[local].global = global;
	task_now = local;
	run(POST_FORK);
	task_now = -1;
	if (write(wait_here[1], "x", 1) != 1)
		die("fork", "the task is gone");
	close(wait_here[1]);
}

static void task_exit(int local)
{
	task_now = local;
	exited_now = 1;
	run(TASK_EXIT);
	exited_now = 0;
	task_now = -1;
}

static char *unescape(const char *from)
{
	char *out = malloc(strlen(from) + 1), *to = out;

	while (*from) {
		unsigned hex;
		if (from[0] == '\\' && from[1] == 'n') {
			*to++ = '\n';
			from += 2;
		} else if (from[0] == '\\' && from[1] == '\\') {
			*to++ = '\\';
			from += 2;
		} else if (from[0] == '\\' && from[1] == 'x' && sscanf(from + 2, "%2x", &hex) == 1) {
			*to++ = (char) hex;
			from += 4;
		} else {
			*to++ = *from++;
		}
	}
	*to = 0;
	return out;
}

static void add(char **list, int *count, char *text)
{
	if (*count == STRINGS - 1)
		die("too many strings", text);
	list[(*count)++] = text;
}

static void set(unsigned item, enum kind kind, uint64_t number, char *text)
{
	if (item >= ITEMS)
		die("no such item", "");
	items[item].kind = kind;
	items[item].number = number;
	items[item].text = text;
}

static void option_given(const char *rest)
{
	char name[64], value[4096] = "";

	if (sscanf(rest, "%63s %4095[^\n]", name, value) < 1)
		die("option", rest);
	for (int i = 0; i < noptions; i++)
		if (!strcmp(options[i].name, name))
			fprintf(report, "rc option %d\n", options[i].cb(options[i].val, value, context_now == SPK_CTX_REMOTE));
}

static void obey(const char *plugin_path, char *line)
{
	char word[32] = "";
	unsigned long long a = 0, b = 0;
	int at = 0, more = 0;

	sscanf(line, "%31s %n", word, &at);
	const char *rest = line + at;
	int numbers = sscanf(rest, "%lli %lli %n", (long long *) &a, (long long *) &b, &more);
	if (numbers == 1)
		sscanf(rest, "%*i %n", &more);

	if (!*word || *word == '#') return;
	else if (!strcmp(word, "api")) api = (long) a;
	else if (!strcmp(word, "context")) context_now = (unsigned) a;
	else if (!strcmp(word, "arg")) add(args, &nargs, unescape(rest));
	else if (!strcmp(word, "u16")) set((unsigned) a, U16, b, NULL);
	else if (!strcmp(word, "u32")) set((unsigned) a, U32, b, NULL);
	else if (!strcmp(word, "u64")) set((unsigned) a, U64, b, NULL);
	else if (!strcmp(word, "int")) set((unsigned) a, INT, b, NULL);
	else if (!strcmp(word, "fail")) set((unsigned) a, FAIL, b, NULL);
	else if (!strcmp(word, "null")) set((unsigned) a, NULLED, 0, NULL);
	else if (!strcmp(word, "str")) {
		sscanf(rest, "%*i %n", &more);
		set((unsigned) a, STR, 0, unescape(rest + more));
	}
	else if (!strcmp(word, "argv")) add(job_argv, &njob_argv, unescape(rest));
	else if (!strcmp(word, "env")) add(job_env, &njob_env, unescape(rest));
	else if (!strcmp(word, "own")) putenv(unescape(rest));
	else if (!strcmp(word, "bigenv") || !strcmp(word, "bigown")) {
		char key[64], byte;
		long n;
		if (sscanf(rest, "%63s %c %ld", key, &byte, &n) != 3)
			die(word, rest);
		char *text = malloc(strlen(key) + 2 + (size_t) n);
		sprintf(text, "%s=", key);
		memset(text + strlen(key) + 1, byte, (size_t) n);
		text[strlen(key) + 1 + (size_t) n] = 0;
		if (!strcmp(word, "bigown"))
			putenv(text);
		else
			add(job_env, &njob_env, text);
	}
	else if (!strcmp(word, "load")) load(plugin_path);
	else if (!strcmp(word, "init")) run(INIT);
	else if (!strcmp(word, "exit")) run(EXIT);
	else if (!strcmp(word, "post_fork")) run(POST_FORK);
	else if (!strcmp(word, "prolog")) run(PROLOG);
	else if (!strcmp(word, "epilog")) run(EPILOG);
	else if (!strcmp(word, "option")) option_given(rest);
	else if (!strcmp(word, "cgroup")) cgroup = *rest ? strdup(rest) : NULL;
	else if (!strcmp(word, "out")) task_out = *rest ? strdup(rest) : NULL;
	else if (!strcmp(word, "late")) late = (useconds_t) a;
	else if (!strcmp(word, "null")) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0)
			die("null", strerror(errno));
		close(null);
	}
	else if (!strcmp(word, "contain")) contained = (int) a;
	else if (!strcmp(word, "close_from")) {
		for (int fd = (int) a; fd < 256; fd++)
			if (fd != report_fd)
				close(fd);
	}
	else if (!strcmp(word, "fork")) {
		if (numbers != 2)
			die("fork", rest);
		fork_task((int) a, (unsigned) b, rest + more);
	}
	else if (!strcmp(word, "reap")) {
		if (waitpid(tasks[a].pid, &tasks[a].status, 0) != tasks[a].pid)
			die("the plugin has reaped a task", rest);
		task_exit((int) a);
	}
	else if (!strcmp(word, "task_exit")) {
		int pid, status;
		if (sscanf(rest, "%*i %i %i", &pid, &status) != 2)
			die("task_exit", rest);
		tasks[a].pid = pid;
		tasks[a].status = status;
		task_exit((int) a);
	}
	else die("unknown word", line);
}

static int open_fds(void)
{
	int n = 0;
	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

int main(int argc, char **argv)
{
	static char *lines[STRINGS];
	int nlines = 0, repeat_from = 0;
	long repeats = 0;
	char *line = NULL;
	size_t size = 0;

	if (argc != 4)
		return 64;
	FILE *script = fopen(argv[2], "re");
	if (!(report = fopen(argv[3], "we")) || !script)
		return 66;
	report_fd = fileno(report);
	while (getline(&line, &size, script) > 0 && nlines < STRINGS) {
		line[strcspn(line, "\n")] = 0;
		lines[nlines++] = strdup(line);
	}
	fclose(script);
	free(line);
	const int fds_before = open_fds();

	for (int i = 0; i < nlines; i++) {
		if (!strncmp(lines[i], "repeat ", 7)) {
			repeats = atol(lines[i] + 7);
			repeat_from = i;
		} else if (!strcmp(lines[i], "again")) {
			if (--repeats > 0)
				i = repeat_from;
		} else {
			obey(argv[1], lines[i]);
		}
	}

	struct mallinfo2 heap = mallinfo2();
	fprintf(report, "heap %zu\n", heap.uordblks);
	fprintf(report, "new_fds %d\n", open_fds() - fds_before);
	fprintf(report, "done\n");
	fclose(report);
	return 0;
}
