/* SPDX-License-Identifier: MIT */
/*
 * inject: runs a program again and again, and each time another of its system calls fails, until
 * there is none left to fail.
 *
 *     inject [-e ERROR] [-m MARK.so] [-r] [-l] [-x] [-1 TEXT] [-p SCRIPT] [-c SCRIPT] PROGRAM ...
 *
 *     -e ERROR   its name (ENOMEM); without it another one for each call
 *     -m MARK    preloaded; counting begins where it says (tests/faults/mark.c), not at execve
 *     -r         calls of the dynamic loader's own pass: it has ways of its own to fail
 *     -l         output may differ where the status is 0 (what was not known is said there), but
 *                not lack more than half
 *     -x         counting ends with the next execve that succeeds
 *     -1 TEXT    status 1 is an answer, with this text in the output
 *     -p SCRIPT  run by sh before each run
 *     -c SCRIPT  run by sh after each run, $STATUS and $SAID set; it prints what is wrong
 *
 * A run may end with the same status and output as undisturbed; or with another status than 0 and
 * words on standard error (of which an output that cannot be written is an exception). It may not
 * end by a signal, nor last longer than ten seconds.
 *
 * The supervisor sees the calls before the kernel does (seccomp(2), user notification). Calls that
 * the kernel never refuses pass: futex, signals, exits. Standard output has a line for each finding
 * and at last `N calls, N of them end it`; the status is 1 where there was a finding.
 */
#define _GNU_SOURCE
#include "tests/faults/inject.h"
#include "tests/notify_kit.h"

#include <ctype.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#define SECONDS 10
#define TEXT_BYTES ((size_t)1 << 16)

static struct {
    int code; /* 0: another one for each call */
    const char *mark, *before, *script, *answer;
    bool not_loader, lenient, until_exec;
    char **command;
} asked;

static const int codes[] = {ENOMEM, EPERM, EINVAL, ENOSYS, EAGAIN, EINTR, EMFILE, EIO};

struct run {
    unsigned at; /* the call to fail; 0: none */
    int code;
    unsigned seen;
    bool counting, exec_passed;
    bool started;                       /* the program's execve is behind it */
    uint64_t loader_first, loader_last; /* addresses of its code; 0: not looked up yet */
    int failed;                         /* its number; -1: none failed */
    uint64_t failed_first;
    int status; /* of waitpid; -1: it had to be killed */
    char out[TEXT_BYTES], err[TEXT_BYTES];
};

static struct run reference, current;

static void die(const char *what)
{
    perror(what);
    exit(2);
}

/* ---- the program ----------------------------------------------------------------------------- */

static void send_descriptor(int channel, int descriptor)
{
    char byte = 0, room[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
    struct iovec data = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &descriptor, sizeof descriptor);
    if (sendmsg(channel, &message, 0) != 1)
        _exit(126);
}

/* -1: the child could not be watched. */
static int receive_descriptor(int channel)
{
    char byte, room[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
    struct iovec data = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    int descriptor = -1;
    if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&message) != NULL)
        memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof descriptor);
    return descriptor;
}

static void be_watched(int channel)
{
    struct sock_filter filter[] = {
        NOTIFY_LOAD,
        NOTIFY_PASS(SYS_futex),
        NOTIFY_PASS(SYS_exit),
        NOTIFY_PASS(SYS_exit_group),
        NOTIFY_PASS(SYS_rt_sigprocmask),
        NOTIFY_PASS(SYS_rt_sigaction),
        NOTIFY_PASS(SYS_rt_sigreturn),
        NOTIFY_PASS(SYS_rt_sigpending),
        NOTIFY_PASS(SYS_set_robust_list),
        NOTIFY_PASS(SYS_rseq),
        NOTIFY_PASS(SYS_gettid),
        NOTIFY_PASS(SYS_getpid),
        NOTIFY_PASS(SYS_geteuid),
        NOTIFY_PASS(SYS_sendmsg),
        NOTIFY_REST(SECCOMP_RET_USER_NOTIF),
    };
    int listener = notify_listen(filter, sizeof filter / sizeof *filter);
    if (listener < 0)
        _exit(126);
    send_descriptor(channel, listener);
}

static void be_program(int channel, int out, int err)
{
    const struct rlimit no_core = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &no_core);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    if (dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        _exit(126);
    if (asked.mark != NULL)
        setenv("LD_PRELOAD", asked.mark, 1);
    be_watched(channel);
    execvp(asked.command[0], asked.command);
    _exit(126);
}

/* ---- its calls ------------------------------------------------------------------------------- */

/* What is not counted: an empty range asks whether the kernel knows the call. */
static bool is_question(const struct seccomp_data *call)
{
    return (call->nr == SYS_madvise || call->nr == SYS_munmap) && call->args[1] == 0;
}

static void find_loader(struct run *run, unsigned process)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%u/maps", process);
    FILE *maps = fopen(path, "r");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        unsigned long first, last;
        char rights[8];
        if (strstr(line, "/ld-linux") == NULL && strstr(line, "/ld-2") == NULL)
            continue;
        if (sscanf(line, "%lx-%lx %7s", &first, &last, rights) == 3 && rights[2] == 'x') {
            run->loader_first = first;
            run->loader_last = last;
        }
    }
    if (maps != NULL)
        fclose(maps);
    if (run->loader_first == 0)
        die("the dynamic loader is not mapped");
}

static bool is_loaders(struct run *run, const struct seccomp_data *call, unsigned process)
{
    if (!asked.not_loader)
        return false;
    if (run->loader_first == 0)
        find_loader(run, process);
    return call->instruction_pointer >= run->loader_first &&
           call->instruction_pointer < run->loader_last;
}

/* A negative errno, or 0 to let it go on. */
static int judge(struct run *run, const struct seccomp_data *call, unsigned process)
{
    if (!run->started) {
        run->started = call->nr == SYS_execve;
        return 0;
    }
    if (call->nr == SYS_prctl && call->args[0] == INJECT_MARK) {
        run->counting = !run->exec_passed;
        return 0;
    }
    if (!run->counting || is_question(call) || is_loaders(run, call, process))
        return 0;
    if (++run->seen == run->at) {
        run->failed = call->nr;
        run->failed_first = call->args[0];
        return -run->code;
    }
    if (call->nr == SYS_execve && asked.until_exec) {
        run->counting = false; /* one that finds no file is followed by the next */
        run->exec_passed = true;
    }
    return 0;
}

static struct notify_answer judge_call(const struct seccomp_notif *notice, void *run)
{
    int code = judge(run, &notice->data, notice->pid);
    return (struct notify_answer){.value = code, .given = code != 0};
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int watch(struct run *run, pid_t child, int listener)
{
    const double deadline = now() + SECONDS;
    int status;
    for (;;) {
        struct pollfd watched = {listener, POLLIN, 0};
        int ready = poll(&watched, 1, 200);
        if (ready > 0 && (watched.revents & POLLIN) != 0)
            notify_answer(listener, judge_call, run);
        else if (ready > 0) /* nobody is left who could call */
            break;
        if (ready <= 0 && waitpid(child, &status, WNOHANG) == child)
            return status;
        if (now() > deadline) {
            kill(-child, SIGKILL);
            (void)waitpid(child, &status, 0);
            return -1;
        }
    }
    (void)waitpid(child, &status, 0);
    return status;
}

static void read_back(int file, char *text)
{
    ssize_t got = pread(file, text, TEXT_BYTES - 1, 0);
    text[got > 0 ? got : 0] = '\0';
    close(file);
}

static void run_once(struct run *run, unsigned at, int code)
{
    int ends[2];
    if (asked.before != NULL && system(asked.before) != 0)
        die(asked.before);
    int out = memfd_create("out", MFD_CLOEXEC), err = memfd_create("err", MFD_CLOEXEC);
    if (out < 0 || err < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        die("inject");
    memset(run, 0, offsetof(struct run, out));
    run->at = at;
    run->code = code;
    run->failed = -1;
    run->counting = asked.mark == NULL;
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0)
        be_program(ends[1], out, err);
    close(ends[1]);
    int listener = receive_descriptor(ends[0]);
    close(ends[0]);
    if (listener < 0) {
        (void)waitpid(child, NULL, 0);
        puts("skip: seccomp's user notification is refused here");
        exit(77);
    }
    run->status = watch(run, child, listener);
    close(listener);
    read_back(out, run->out);
    read_back(err, run->err);
}

/* ---- verdicts -------------------------------------------------------------------------------- */

/* Blanks are one blank, digits one '#': some figures change from one moment to the next. */
static void simplify(char *to, const char *from)
{
    for (; *from != '\0'; from++) {
        bool digit = isdigit((unsigned char)*from) != 0;
        char sign = (char)(digit ? '#' : *from);
        if ((digit || sign == ' ') && from[1] != '\0' &&
            (digit ? isdigit((unsigned char)from[1]) != 0 : from[1] == ' '))
            continue;
        *to++ = sign;
    }
    *to = '\0';
}

static bool same_output(const struct run *run)
{
    static char one[TEXT_BYTES], other[TEXT_BYTES];
    simplify(one, run->out);
    simplify(other, reference.out);
    return strcmp(one, other) == 0;
}

static bool has_words(const char *text)
{
    return strlen(text) >= 20 && strchr(text, ' ') != NULL;
}

/* NULL, or what is wrong. */
static const char *verdict(const struct run *run)
{
    if (run->status == -1)
        return "had not ended after ten seconds";
    if (WIFSIGNALED(run->status))
        return strsignal(WTERMSIG(run->status));
    if (run->status == 0 && !same_output(run) &&
        (!asked.lenient || strlen(run->out) < strlen(reference.out) / 2))
        return "status 0 with another output";
    if (run->status == 0)
        return run->failed == SYS_write && run->failed_first == STDOUT_FILENO &&
                       run->code != EINTR && run->code != EAGAIN
                   ? "status 0 though the output could not be written"
                   : NULL;
    bool answered = asked.answer != NULL && WEXITSTATUS(run->status) == 1 &&
                    strstr(run->out, asked.answer) != NULL;
    bool mute = run->failed == SYS_write && run->failed_first == STDERR_FILENO;
    if (!has_words(run->err) && !answered && !mute && run->status != reference.status)
        return "ended without a word";
    return NULL;
}

static bool script_finds(const struct run *run, char *text, size_t capacity)
{
    char status[16];
    if (asked.script == NULL)
        return false;
    snprintf(status, sizeof status, "%d", run->status == -1 ? -1 : WEXITSTATUS(run->status));
    setenv("STATUS", status, 1);
    setenv("SAID", run->err, 1);
    FILE *pipe = popen(asked.script, "r");
    if (pipe == NULL)
        die("popen");
    size_t got = fread(text, 1, capacity - 1, pipe);
    text[got] = '\0';
    int ended = pclose(pipe);
    return got > 0 || ended != 0;
}

static void tell(const struct run *run, const char *what)
{
    printf("FAIL call %u, number %d (first argument %llu) by %s: %s; status %#x; it said: %.300s; "
           "it printed: %.3000s\n",
           run->at, run->failed, (unsigned long long)run->failed_first, strerrorname_np(run->code),
           what, (unsigned)run->status, run->err, run->out);
}

static int go_through(void)
{
    static char found[2048];
    unsigned ended = 0, findings = 0, at;
    for (at = 1;; at++) {
        size_t turn = at % (sizeof codes / sizeof *codes);
        run_once(&current, at, asked.code != 0 ? asked.code : codes[turn]);
        bool wrong = script_finds(&current, found, sizeof found);
        if (current.failed < 0)
            break;
        ended += current.status != reference.status;
        const char *what = verdict(&current);
        if (what == NULL && wrong)
            what = found;
        if (what != NULL) {
            findings++;
            tell(&current, what);
        }
    }
    printf("%u calls, %u of them end it\n", at - 1, ended);
    return at < 2 || findings != 0;
}

static int code_of(const char *name)
{
    for (size_t n = 0; n < sizeof codes / sizeof *codes; n++)
        if (strcmp(strerrorname_np(codes[n]), name) == 0)
            return codes[n];
    fprintf(stderr, "inject: unknown error %s\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "+e:m:rlx1:p:c:")) != -1) {
        switch (option) {
        case 'e':
            asked.code = code_of(optarg);
            break;
        case 'm':
            asked.mark = optarg;
            break;
        case 'l':
            asked.lenient = true;
            break;
        case 'x':
            asked.until_exec = true;
            break;
        case 'r':
            asked.not_loader = true;
            break;
        case 'p':
            asked.before = optarg;
            break;
        case '1':
            asked.answer = optarg;
            break;
        case 'c':
            asked.script = optarg;
            break;
        default:
            return 2;
        }
    }
    asked.command = argv + optind;
    if (optind == argc)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    run_once(&reference, 0, 0);
    if (reference.status == -1 || WIFSIGNALED(reference.status)) {
        printf("FAIL undisturbed: status %#x: %s\n", (unsigned)reference.status, reference.err);
        return 1;
    }
    static char found[2048];
    if (script_finds(&reference, found, sizeof found)) {
        printf("FAIL undisturbed: %s\n", found);
        return 1;
    }
    return go_through();
}
