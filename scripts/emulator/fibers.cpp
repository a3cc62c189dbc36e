// Runs a kernel's grid on the CPU: blocks on a pool of OS threads, a block's CUDA threads as fibers on one of them.
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <vector>

#include "emulated.h"

// ucontext would make a system call of every switch. Only what the ABI has a callee save is kept: a switch is a call.
extern "C" void emulated_switch(void **save, void *load);
asm(R"(
.text
.globl emulated_switch
.hidden emulated_switch
.type emulated_switch, @function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulated_switch, .-emulated_switch
)");

namespace emulated {

constexpr size_t STACK = 64 << 10, PAGE = 4 << 10, MAX_THREADS = 1024, GUARD = 256;
constexpr unsigned char GUARD_BYTE = 0xA5;

struct Fiber;
struct Warp {
    Warp *next;
    Fiber *turn; // where the search for a thread of it goes on
    unsigned lanes, alive, arrived;
    uint32_t generation;
    Collective kind;
    // Two, used in turn: a lane may be at the next collective before the others have read this one's results, but
    // that one cannot end without them.
    Slot banks[2][WARP];
};

struct Copy {
    void *shared;
    const void *global;
    bool valid;
};

struct Fiber {
    Fiber *next; // of its warp, in a ring
    uint3 index;
    unsigned lane;
    Warp *warp;
    void *stack;
    // Waits for this counter to move on from what it was.
    const uint32_t *waits_for;
    uint32_t seen;
    bool done;
    std::vector<Copy> copies;
    std::vector<size_t> groups; // where in `copies` each committed group ends
};

struct Launch {
    const Kernel &kernel;
    dim3 grid, size;
    size_t shared;
    void **parameters;
    std::atomic<uint64_t> next;
};

struct Worker {
    std::vector<Fiber> fibers{MAX_THREADS};
    std::vector<Warp> warps{MAX_THREADS / WARP};
    unsigned char *stacks, *shared;
    void *stack;
    Launch *launch;
    Worker();
};

__thread Block *block;
__thread const uint3 *thread;
static __thread Fiber *self;
static __thread Worker *worker;

// From the last thread to the first shows what a missing barrier hides when the first runs before the second.
static const bool reverse = getenv("STILLROOM_EMULATED_REVERSE"), eager = getenv("STILLROOM_EMULATED_EAGER");

unsigned lane() { return self->lane; }

static void report(const char *message) {
    fprintf(stderr, "emulator: %s: kernel %s, block (%u, %u, %u)", message, worker ? worker->launch->kernel.name : "?",
            block->index.x, block->index.y, block->index.z);
    if (self) fprintf(stderr, ", thread (%u, %u, %u)", self->index.x, self->index.y, self->index.z);
    fputc('\n', stderr);
}

void fail(const char *message) {
    report(message);
    abort();
}

static std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

void add_kernel(const char *name, void (*run)(void **)) {
    if (kernels().emplace(name, Kernel{name, run, DEFAULT_SHARED}).second) return;
    fprintf(stderr, "emulator: two kernels are called %s\n", name);
    abort();
}

Kernel *find_kernel(const char *name) {
    auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

[[noreturn]] static void deadlock() {
    unsigned barrier = 0, collective = 0, left = 0;
    for (unsigned i = 0; i < block->threads; i++) {
        const Fiber &fiber = worker->fibers[i];
        ++(fiber.done ? left : fiber.waits_for == &block->generation ? barrier : collective);
    }
    self = nullptr;
    report("deadlock");
    fprintf(stderr, "emulator: %u threads wait at __syncthreads, %u in a collective of their warp, %u have returned\n",
            barrier, collective, left);
    abort();
}

static bool runnable(const Fiber &fiber) {
    return !fiber.done && (!fiber.waits_for || *fiber.waits_for != fiber.seen);
}

// The next thread that can run, its own warp's first: a warp that is between barriers stays in the cache.
static Fiber *next_fiber(const Fiber &from) {
    for (Fiber *fiber = from.next; fiber != &from; fiber = fiber->next)
        if (runnable(*fiber)) return fiber;
    if (runnable(from)) return const_cast<Fiber *>(&from);
    for (Warp *warp = from.warp->next; warp != from.warp; warp = warp->next)
        for (unsigned l = 0; l < warp->lanes; l++, warp->turn = warp->turn->next)
            if (runnable(*warp->turn)) return warp->turn;
    return nullptr;
}

static void switch_from(Fiber &fiber) {
    Fiber *next = next_fiber(fiber);
    if (next == &fiber) return;
    if (!next && block->alive) deadlock();
    self = next;
    thread = next ? &next->index : nullptr;
    emulated_switch(&fiber.stack, next ? next->stack : worker->stack);
}

static void wait_for(const uint32_t *counter) {
    Fiber &fiber = *self;
    fiber.waits_for = counter;
    fiber.seen = *counter;
    switch_from(fiber);
    fiber.waits_for = nullptr;
}

static void release_block() {
    block->arrived = 0;
    block->votes[++block->generation & 1] = 0;
}

static void run_thread() {
    worker->launch->kernel.run(worker->launch->parameters);
    Fiber &fiber = *self;
    Warp &warp = *fiber.warp;
    fiber.done = true;
    // A barrier counts threads that have returned as arrived.
    if (--block->alive == block->arrived && block->arrived) release_block();
    if (--warp.alive == warp.arrived && warp.arrived && warp.kind == Collective::Sync) {
        warp.arrived = 0;
        warp.generation++;
    }
    switch_from(fiber);
    abort();
}

// A register holds two neighbours of k, of one row of A or one column of B: even and odd k are kept apart, which
// makes both of the halves an operand's rows of floats.
static void mma(Slot *slots) {
    typedef float Row __attribute__((vector_size(32), may_alias));
    struct Operands {
        uint32_t a[4], b[2];
        float d[4];
    };
    static_assert(sizeof(Operands) == sizeof(Slot));
    uint32_t a[16][8], b[8][8];
    alignas(32) float d[16][8], even[8][8], odd[8][8];
    for (unsigned l = 0; l < WARP; l++) {
        Operands lane;
        memcpy(&lane, &slots[l], sizeof lane);
        const unsigned group = l >> 2, pair = l & 3;
        for (unsigned i = 0; i < 4; i++) a[group + i % 2 * 8][pair + i / 2 * 4] = lane.a[i];
        for (unsigned i = 0; i < 2; i++) {
            b[pair + i * 4][group] = lane.b[i];
            memcpy(&d[group + i * 8][pair * 2], &lane.d[i * 2], 8);
        }
    }
    for (unsigned i = 0; i < 64; i++) {
        even[i / 8][i % 8] = __uint_as_float(b[i / 8][i % 8] << 16);
        odd[i / 8][i % 8] = __uint_as_float(b[i / 8][i % 8] & 0xffff0000);
    }
    for (unsigned m = 0; m < 16; m++) {
        Row &sum = *reinterpret_cast<Row *>(d[m]);
        for (unsigned k = 0; k < 8; k++) {
            sum += __uint_as_float(a[m][k] << 16) * *reinterpret_cast<const Row *>(even[k]);
            sum += __uint_as_float(a[m][k] & 0xffff0000) * *reinterpret_cast<const Row *>(odd[k]);
        }
    }
    for (unsigned l = 0; l < WARP; l++)
        for (unsigned i = 0; i < 2; i++)
            memcpy(reinterpret_cast<char *>(&slots[l]) + offsetof(Operands, d) + i * 8,
                   &d[(l >> 2) + i * 8][(l & 3) * 2], 8);
}

// Reads for every lane at once, as the instruction does: a lane may store to these rows as soon as it is through.
static void ldmatrix(Slot *slots, bool trans) {
    const uint16_t *rows[WARP];
    for (unsigned l = 0; l < WARP; l++) {
        memcpy(&rows[l], &slots[l], sizeof rows[l]);
        if (uintptr_t(rows[l]) % 16) fail("an ldmatrix row is not aligned to 16 bytes");
    }
    for (unsigned l = 0; l < WARP; l++) {
        uint16_t r[4][2];
        const unsigned group = l >> 2, pair = (l & 3) * 2;
        for (unsigned i = 0; i < 4; i++)
            for (unsigned half = 0; half < 2; half++)
                r[i][half] = trans ? rows[8 * i + pair + half][group] : rows[8 * i + group][pair + half];
        memcpy(&slots[l], r, sizeof r);
    }
}

Slot *exchange(Collective kind, unsigned mask, const void *deposit, size_t bytes) {
    Fiber &fiber = *self;
    Warp &warp = *fiber.warp;
    const bool sync = kind == Collective::Sync;
    if (mask != ~0u) fail("only collectives of the full warp are emulated");
    if (!sync && warp.alive != WARP) fail("a collective in a warp of which not all 32 threads take part");
    if (warp.arrived && warp.kind != kind) fail("the lanes of one warp are at different collectives");
    warp.kind = kind;
    Slot *bank = warp.banks[warp.generation & 1];
    if (bytes) memcpy(&bank[fiber.lane], deposit, bytes);
    if (++warp.arrived < warp.alive) {
        wait_for(&warp.generation);
        return bank;
    }
    if (kind == Collective::Mma) mma(bank);
    if (kind == Collective::Ldmatrix || kind == Collective::LdmatrixTrans)
        ldmatrix(bank, kind == Collective::LdmatrixTrans);
    warp.arrived = 0;
    warp.generation++;
    return bank;
}

static void copy(const Copy &copy) {
    if (copy.valid)
        memcpy(copy.shared, copy.global, 16);
    else
        memset(copy.shared, 0, 16);
}

void wait_copies(size_t groups_left) {
    Fiber &fiber = *self;
    if (fiber.groups.size() <= groups_left) return;
    const size_t groups = fiber.groups.size() - groups_left, copies = fiber.groups[groups - 1];
    for (size_t i = 0; i < copies; i++) copy(fiber.copies[i]);
    fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + copies);
    fiber.groups.erase(fiber.groups.begin(), fiber.groups.begin() + groups);
    for (size_t &end : fiber.groups) end -= copies;
}

Worker::Worker() {
    auto reserve = [](size_t bytes) {
        void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) abort();
        return static_cast<unsigned char *>(p);
    };
    stacks = reserve(MAX_THREADS * (PAGE + STACK));
    for (size_t i = 0; i < MAX_THREADS; i++) mprotect(stacks + i * (PAGE + STACK), PAGE, PROT_NONE);
    shared = reserve(MAX_SHARED + GUARD);
}

static void run_block(Worker &worker, Launch &launch, uint64_t number) {
    const dim3 &size = launch.size, &grid = launch.grid;
    Block state{};
    state.index = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
    state.size = size;
    state.grid = grid;
    state.shared = worker.shared;
    state.threads = state.alive = size.x * size.y * size.z;
    // Unwritten shared memory reads as NaN.
    memset(worker.shared, 0xff, launch.shared);
    memset(worker.shared + launch.shared, GUARD_BYTE, GUARD);
    worker.launch = &launch;
    auto turn = [](unsigned at, unsigned of) { return (at + (reverse ? of - 1 : 1)) % of; };
    const unsigned warps = (state.threads + WARP - 1) / WARP;
    for (unsigned w = 0; w < warps; w++) {
        Warp &warp = worker.warps[w];
        warp.next = &worker.warps[turn(w, warps)];
        warp.lanes = warp.alive = min(WARP, state.threads - w * WARP);
        warp.turn = &worker.fibers[w * WARP + (reverse ? warp.lanes - 1 : 0)];
        warp.arrived = 0;
    }
    for (unsigned i = 0; i < state.threads; i++) {
        Fiber &fiber = worker.fibers[i];
        fiber.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
        fiber.lane = i % WARP;
        fiber.warp = &worker.warps[i / WARP];
        fiber.next = &worker.fibers[i - fiber.lane + turn(fiber.lane, fiber.warp->lanes)];
        fiber.waits_for = nullptr;
        fiber.done = false;
        fiber.copies.clear();
        fiber.groups.clear();
        // Tops of stacks at the same place in their pages would all fall into the same few sets of the cache.
        unsigned char *top = worker.stacks + (i + 1) * (PAGE + STACK) - i % 32 * 128;
        void **stack = reinterpret_cast<void **>(top) - 8;
        memset(stack, 0, 8 * sizeof *stack);
        stack[6] = reinterpret_cast<void *>(&run_thread);
        fiber.stack = stack;
    }
    block = &state;
    Fiber &first = worker.fibers[reverse ? state.threads - 1 : 0];
    self = &first;
    thread = &first.index;
    emulated_switch(&worker.stack, first.stack);
    for (size_t i = 0; i < GUARD; i++)
        if (worker.shared[launch.shared + i] != GUARD_BYTE) fail("a write behind the dynamic shared memory");
    block = nullptr;
}

// A fault inside a kernel says where; any other is left to whoever handled it before.
static struct sigaction previous_fault;
static void on_fault(int signal) {
    if (self) fail("a fault, of a wild or misaligned pointer or a stack of more than 64 KiB");
    sigaction(signal, &previous_fault, nullptr);
}

struct Pool {
    std::mutex mutex, launching;
    std::condition_variable start, end;
    Launch *current = nullptr;
    uint64_t number = 0;
    unsigned threads = std::max(1u, std::thread::hardware_concurrency()), running = 0;

    Pool() {
        struct sigaction action {};
        action.sa_handler = on_fault;
        action.sa_flags = SA_ONSTACK;
        sigaction(SIGSEGV, &action, &previous_fault);
        for (unsigned i = 0; i < threads; i++) std::thread([this] { work(); }).detach();
    }

    void work() {
        Worker own;
        worker = &own;
        std::vector<unsigned char> fault_stack(64 << 10);
        stack_t alternate{};
        alternate.ss_sp = fault_stack.data();
        alternate.ss_size = fault_stack.size();
        sigaltstack(&alternate, nullptr);
        for (uint64_t seen = 0;; seen++) {
            std::unique_lock lock(mutex);
            start.wait(lock, [&] { return number > seen; });
            Launch &launch = *current;
            lock.unlock();
            const uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
            for (uint64_t i; (i = launch.next++) < blocks;) run_block(own, launch, i);
            lock.lock();
            if (--running == 0) end.notify_one();
        }
    }

    void run(Launch &launch) {
        std::lock_guard alone(launching);
        std::unique_lock lock(mutex);
        current = &launch;
        running = threads;
        number++;
        start.notify_all();
        end.wait(lock, [&] { return running == 0; });
    }
};

void launch(const Kernel &kernel, dim3 grid, dim3 size, size_t shared, void **parameters) {
    static Pool &pool = *new Pool; // never destroyed: its threads live as long as the process
    Launch launch{kernel, grid, size, shared, parameters, {0}};
    pool.run(launch);
}

} // namespace emulated

using namespace emulated;

void __syncthreads() {
    if (++block->arrived == block->alive)
        release_block();
    else
        wait_for(&block->generation);
}

int __syncthreads_count(int predicate) {
    const unsigned &votes = block->votes[block->generation & 1];
    block->votes[block->generation & 1] += predicate != 0;
    __syncthreads();
    return int(votes);
}

void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    Slot slot;
    char *bytes = reinterpret_cast<char *>(&slot);
    memcpy(bytes, a, 16);
    memcpy(bytes + 16, &b0, 4);
    memcpy(bytes + 20, &b1, 4);
    memcpy(bytes + 24, d, 16);
    const Slot *slots = exchange(Collective::Mma, ~0u, &slot, sizeof slot);
    memcpy(d, reinterpret_cast<const char *>(&slots[self->lane]) + 24, 16);
}

void ldmatrix_x4(uint32_t (&r)[4], const void *row) {
    memcpy(r, &exchange(Collective::Ldmatrix, ~0u, &row, sizeof row)[self->lane], 16);
}

void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) {
    memcpy(r, &exchange(Collective::LdmatrixTrans, ~0u, &row, sizeof row)[self->lane], 16);
}

void cp_async_16(void *shared, const void *global, bool valid) {
    if (uintptr_t(shared) % 16 || (valid && uintptr_t(global) % 16)) fail("a cp.async is not aligned to 16 bytes");
    const Copy one{shared, global, valid};
    if (eager)
        copy(one);
    else
        self->copies.push_back(one);
}

void cp_async_commit() { self->groups.push_back(self->copies.size()); }
