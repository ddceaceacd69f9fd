/* The least that a recorder can do for a step with one task: the same looks at the system as ours, at
 * the same moments, with nothing made of them, and one ready-made line for each that ours writes. What it
 * takes is the kernel's price for the facts; it tells it by a file beside its own .so, one number in
 * microseconds per step. Only the layout of cgroup v1 on the machine of the tests is known to it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <slurm/spank.h>

SPANK_PLUGIN(floor, 1)

static int journal = -1, step = -1;
static char journal_path[256], task[64], buffer[4096], line[1600];
static double spent, began;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static ssize_t look(int dir, const char *path)
{
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = read(fd, buffer, sizeof(buffer) - 1);
	close(fd);
	buffer[n < 0 ? 0 : n] = 0;
	return n;
}

static void say(int length)
{
	struct stat st;
	fstat(journal, &st);
	if (write(journal, line, length) < 0)
		spent = -1e9;
}

int slurm_spank_init(spank_t sp, int ac, char **av)
{
	struct stat st;
	struct rlimit limit;
	const char *conf = getenv("SLURM_CONF");

	if (!spank_remote(sp) || ac != 1)
		return 0;
	began = now();
	look(AT_FDCWD, conf ? conf : "/etc/slurm/slurm.conf");
	look(AT_FDCWD, "/proc/sys/kernel/random/boot_id");
	int root = open(av[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
	fstat(root, &st);
	journal = openat(root, "floor.jsonl", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	fstat(journal, &st);
	getrlimit(RLIMIT_FSIZE, &limit);
	close(root);
	spent = now() - began;
	snprintf(journal_path, sizeof(journal_path), "%s/floor.us", av[0]);
	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	return 0;
}

int slurm_spank_init_post_opt(spank_t sp, int ac, char **av)
{
	return 0;
}

int slurm_spank_task_post_fork(spank_t sp, int ac, char **av)
{
	char path[768], *at, *end;
	pid_t pid;

	if (journal < 0)
		return 0;
	began = now();
	spank_get_item(sp, S_TASK_PID, &pid);
	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	look(AT_FDCWD, path);
	at = strstr(buffer, ":memory:");
	end = at ? strchr(at, '\n') : NULL;
	if (!end)
		return 0;
	*end = 0;
	snprintf(task, sizeof(task), "%s", strrchr(at, '/') + 1);
	*strrchr(at, '/') = 0;
	snprintf(path, sizeof(path), "/sys/fs/cgroup/memory%s", at + 8);
	step = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	look(step, "memory.limit_in_bytes");
	for (int n = 0; n < 3; n++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", pid, (const char *[]) { "fd/1", "fd/2", "cwd" }[n]);
		if (readlink(path, buffer, sizeof(buffer)) < 0)
			spent = -1e9;
	}
	say(sizeof(line));
	spent += now() - began;
	return 0;
}

int slurm_spank_task_exit(spank_t sp, int ac, char **av)
{
	struct rusage usage;
	char path[128];

	if (journal < 0)
		return 0;
	began = now();
	snprintf(path, sizeof(path), "%s/memory.oom_control", task);
	look(step, path);
	snprintf(path, sizeof(path), "%s/memory.max_usage_in_bytes", task);
	if (look(step, path) <= 0)
		spent = -1e9;
	getrusage(RUSAGE_CHILDREN, &usage);
	say(500);
	spent += now() - began;
	return 0;
}

int slurm_spank_exit(spank_t sp, int ac, char **av)
{
	struct rusage usage;
	char text[32];

	if (journal < 0)
		return 0;
	began = now();
	getrusage(RUSAGE_CHILDREN, &usage);
	say(700);
	spent += now() - began;
	int told = open(journal_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	if (write(told, text, snprintf(text, sizeof(text), "%.1f\n", spent)) < 0)
		return 0;
	close(told);
	return 0;
}
