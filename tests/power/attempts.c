#include "tests/power/attempts.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/netlink.h>
#include <linux/openat2.h>
#include <linux/perf_event.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "lib/util/fd.h"
#include "lib/util/macro.h"

#define RESULT(r) ((r) < 0 ? -errno : 0)

static int try_open(const struct prey *prey)
{
	return RESULT(open("/etc/passwd", O_RDONLY));
}

static int try_open_root(const struct prey *prey)
{
	return RESULT(open("/etc/shadow", O_RDONLY));
}

static int try_create(const struct prey *prey)
{
	return RESULT(open("/tmp/escaped", O_WRONLY | O_CREAT, 0600));
}

static int try_openat2(const struct prey *prey)
{
	struct open_how how = { .flags = O_RDONLY };

	return RESULT(syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof(how)));
}

static int try_unlink(const struct prey *prey)
{
	return RESULT(unlink("/tmp/victim"));
}

static int try_device(const struct prey *prey)
{
	return RESULT(open("/dev/nbd0", O_RDWR));
}

static int try_device_ioctl(const struct prey *prey)
{
	uint64_t size;

	return RESULT(ioctl(prey->device, BLKGETSIZE64, &size));
}

static int try_mknod(const struct prey *prey)
{
	return RESULT(mknod("/tmp/escaped-node", S_IFBLK | 0600, makedev(43, 0)));
}

static int try_memory_file(const struct prey *prey)
{
	return RESULT(memfd_create("escaped", 0));
}

static int try_socket_inet(const struct prey *prey)
{
	return RESULT(socket(AF_INET, SOCK_STREAM, 0));
}

static int try_socket_unix(const struct prey *prey)
{
	return RESULT(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int try_socket_netlink(const struct prey *prey)
{
	return RESULT(socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC));
}

static int try_socket_raw(const struct prey *prey)
{
	return RESULT(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

/* Any answer of the kernel's TCP means that the call was possible. */
static int try_connect(const struct prey *prey)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(1),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int r = RESULT(connect(STDIN_FILENO, (struct sockaddr *)&a, sizeof(a)));

	return r == -ENOTSOCK ? 0 : r;
}

static int try_listen(const struct prey *prey)
{
	int r = RESULT(listen(STDIN_FILENO, 1));

	return r == -ENOTSOCK ? 0 : r;
}

static int try_socket_filter(const struct prey *prey)
{
	struct sock_filter one = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog p = { 1, &one };

	/* The program is looked at before the kind of the socket. */
	return RESULT(setsockopt(3, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof(p)));
}

static int try_kill_parent(const struct prey *prey)
{
	return RESULT(kill(prey->parent, SIGURG));		/* which is ignored */
}

static int try_tgkill_parent(const struct prey *prey)
{
	return RESULT(syscall(SYS_tgkill, prey->parent, prey->parent, SIGURG));
}

static int try_queue_signal(const struct prey *prey)
{
	siginfo_t si = { .si_code = SI_QUEUE };

	return RESULT(syscall(SYS_rt_sigqueueinfo, prey->parent, SIGURG, &si));
}

static int try_pidfd_signal(const struct prey *prey)
{
	int fd = (int)syscall(SYS_pidfd_open, prey->parent, 0);

	if (fd < 0)
		return -errno;
	return RESULT(syscall(SYS_pidfd_send_signal, fd, SIGURG, NULL, 0));
}

static int try_signal_owner(const struct prey *prey)
{
	return RESULT(fcntl(3, F_SETOWN, prey->parent));
}

/* The kernel keeps each, without a limit for all. */
static int try_lock(const struct prey *prey)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1 };

	return RESULT(fcntl(prey->device, F_SETLK, &lock));
}

static int try_ptrace(const struct prey *prey)
{
	return RESULT(ptrace(PTRACE_SEIZE, prey->parent, NULL, NULL));
}

static int try_read_parent(const struct prey *prey)
{
	char byte;
	struct iovec to = { &byte, 1 }, from = { (void *)attempts, 1 };

	return RESULT(process_vm_readv(prey->parent, &to, 1, &from, 1, 0));
}

static int try_write_parent(const struct prey *prey)
{
	static char byte;
	struct iovec from = { &byte, 1 }, to = { &byte, 1 };

	return RESULT(process_vm_writev(prey->parent, &from, 1, &to, 1, 0));
}

static int try_parent_memory(const struct prey *prey)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mem", prey->parent);
	return RESULT(open(path, O_RDWR));
}

static int try_parent_limits(const struct prey *prey)
{
	struct rlimit limit;

	return RESULT(prlimit(prey->parent, RLIMIT_NOFILE, NULL, &limit));
}

static int try_parent_schedule(const struct prey *prey)
{
	return RESULT(setpriority(PRIO_PROCESS, (id_t)prey->parent, 0));
}

static int try_mount(const struct prey *prey)
{
	return RESULT(mount("none", "/mnt", "tmpfs", 0, NULL));
}

static int try_unshare(const struct prey *prey)
{
	return RESULT(unshare(CLONE_NEWNS));
}

static int try_chroot(const struct prey *prey)
{
	return RESULT(chroot("/"));
}

/* See main() of escape.c: what is executed gives the answer. */
static int try_exec(const struct prey *prey)
{
	char name[] = "escape", how[] = "--executed", *argv[] = { name, how, NULL };

	return RESULT(execv("/proc/self/exe", argv));
}

static int try_fork(const struct prey *prey)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	return RESULT(pid);
}

static int thread(void *arg)
{
	return pause();
}

static int try_thread(const struct prey *prey)
{
	static char stack[65536] __attribute__((aligned(16)));
	int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;

	return RESULT(clone(thread, stack + sizeof(stack), flags, NULL));
}

static int try_setuid(const struct prey *prey)
{
	return RESULT(setresuid(0, 0, 0));
}

static int try_setgroups(const struct prey *prey)
{
	gid_t group = 0;

	return RESULT(setgroups(1, &group));
}

static int try_capset(const struct prey *prey)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = 1 << CAP_SYS_ADMIN, .permitted = 1 << CAP_SYS_ADMIN } };

	return RESULT(syscall(SYS_capset, &header, data));
}

static int try_live_on(const struct prey *prey)
{
	return RESULT(prctl(PR_SET_PDEATHSIG, 0));
}

static int try_dumpable(const struct prey *prey)
{
	return RESULT(prctl(PR_SET_DUMPABLE, 1));
}

static int try_bpf(const struct prey *prey)
{
	union bpf_attr attr = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4,
				.value_size = 4, .max_entries = 1 };

	return RESULT(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)));
}

static int try_io_uring(const struct prey *prey)
{
	struct io_uring_params p = {};

	return RESULT(syscall(SYS_io_uring_setup, 4, &p));
}

static int try_perf(const struct prey *prey)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(attr),
					.config = PERF_COUNT_SW_CPU_CLOCK };

	return RESULT(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
}

static int try_userfaultfd(const struct prey *prey)
{
	return RESULT(syscall(SYS_userfaultfd, O_CLOEXEC));
}

static int try_keyring(const struct prey *prey)
{
	return RESULT(syscall(SYS_add_key, "user", "escaped", "x", 1,
			      KEY_SPEC_PROCESS_KEYRING));
}

static int try_shared_memory(const struct prey *prey)
{
	return RESULT(shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600));
}

static int try_inotify(const struct prey *prey)
{
	return RESULT(inotify_init1(0));
}

static int try_map_code(const struct prey *prey)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? -errno : 0;
}

static int try_make_code(const struct prey *prey)
{
	static char page[8192] __attribute__((aligned(4096)));

	return RESULT(mprotect(page, 4096, PROT_READ | PROT_EXEC));
}

static int try_memory(const struct prey *prey)
{
	void *p = mmap(NULL, 300u << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	return p == MAP_FAILED ? -errno : 0;
}

static int try_clock(const struct prey *prey)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return RESULT(clock_settime(CLOCK_REALTIME, &t));
}

static int try_hostname(const struct prey *prey)
{
	return RESULT(sethostname("escaped", 7));
}

static int try_kernel_log(const struct prey *prey)
{
	char text[64];

	return RESULT(klogctl(3 /* SYSLOG_ACTION_READ_ALL */, text, sizeof(text)));
}

#define ROW(name) { #name, try_##name }

/* Over the way to its parent, which takes it for the answer that this has worked. */
static int try_pass_descriptor(const struct prey *prey)
{
	static const int32_t worked;

	return fd_send(PARENT_FD, &worked, sizeof(worked), (int []){ PARENT_FD }, 1);
}

const struct attempt attempts[] = {
	ROW(pass_descriptor), ROW(open), ROW(open_root), ROW(create), ROW(openat2), ROW(unlink),
	ROW(device),
	ROW(device_ioctl), ROW(mknod), ROW(memory_file), ROW(socket_inet), ROW(socket_unix),
	ROW(socket_netlink), ROW(socket_raw), ROW(connect), ROW(listen), ROW(socket_filter),
	ROW(kill_parent), ROW(tgkill_parent), ROW(queue_signal), ROW(pidfd_signal),
	ROW(signal_owner), ROW(lock), ROW(ptrace), ROW(read_parent), ROW(write_parent),
	ROW(parent_memory), ROW(parent_limits), ROW(parent_schedule), ROW(mount),
	ROW(unshare), ROW(chroot), ROW(exec), ROW(fork), ROW(thread), ROW(setuid),
	ROW(setgroups), ROW(capset), ROW(live_on), ROW(dumpable), ROW(bpf), ROW(io_uring),
	ROW(perf), ROW(userfaultfd), ROW(keyring), ROW(shared_memory), ROW(inotify),
	ROW(map_code), ROW(make_code), ROW(memory), ROW(clock), ROW(hostname),
	ROW(kernel_log),
};
const size_t n_attempts = ARRAY_SIZE(attempts);
