// The part of CUDA's driver API that cudarc and candle call, for one device whose memory is the host's. Whatever else
// cuda.h declares is a stub (build.sh) that says its name and fails.
#include <cuda.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <mutex>
#include <unistd.h>

#include "emulated.h"

namespace {

using emulated::Kernel;

constexpr size_t ALIGNMENT = 256, GUARD = 256;
constexpr unsigned char FRESH = 0xff, GUARD_BYTE = 0xA5;

struct Event {
    std::chrono::steady_clock::time_point time;
    bool recorded = false;
};

// What handles point at where there is nothing to keep: one context, one module, one memory pool, any stream.
char the_context, the_module, the_pool;
thread_local CUcontext current_context;

std::mutex memory_mutex;
std::map<uintptr_t, size_t> allocations;
uint64_t used, used_high;
std::map<void *, unsigned> pinned;

uint64_t total_memory() {
    static const uint64_t total = [] {
        const char *limit = getenv("STILLROOM_EMULATED_MEMORY");
        return limit ? strtoull(limit, nullptr, 0) : uint64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
    }();
    return total;
}

CUresult allocate(CUdeviceptr *result, size_t bytes) {
    if (!current_context) return CUDA_ERROR_INVALID_CONTEXT;
    std::lock_guard lock(memory_mutex);
    if (bytes > total_memory() - used) return CUDA_ERROR_OUT_OF_MEMORY;
    void *memory;
    if (posix_memalign(&memory, ALIGNMENT, bytes + GUARD)) return CUDA_ERROR_OUT_OF_MEMORY;
    memset(memory, FRESH, bytes);
    memset(static_cast<char *>(memory) + bytes, GUARD_BYTE, GUARD);
    *result = reinterpret_cast<CUdeviceptr>(memory);
    allocations[*result] = bytes;
    used += bytes;
    used_high = std::max(used_high, used);
    return CUDA_SUCCESS;
}

CUresult release(CUdeviceptr pointer) {
    if (!pointer) return CUDA_SUCCESS;
    std::lock_guard lock(memory_mutex);
    auto found = allocations.find(pointer);
    if (found == allocations.end()) {
        fprintf(stderr, "emulator: %#llx is freed but not allocated\n", pointer);
        return CUDA_ERROR_INVALID_VALUE;
    }
    const size_t bytes = found->second;
    unsigned char *memory = reinterpret_cast<unsigned char *>(pointer);
    for (size_t i = 0; i < GUARD; i++)
        if (memory[bytes + i] != GUARD_BYTE) {
            fprintf(stderr, "emulator: a write %zu bytes behind an allocation of %zu bytes\n", i, bytes);
            abort();
        }
    memset(memory, FRESH, bytes); // for whoever still reads it
    used -= bytes;
    allocations.erase(found);
    free(memory);
    return CUDA_SUCCESS;
}

} // namespace

// Also asked by the emulated cuBLAS, of its operands.
extern "C" bool emulated_device_range(const void *pointer, size_t bytes) {
    const uintptr_t start = reinterpret_cast<uintptr_t>(pointer);
    if (bytes == 0) return true;
    std::lock_guard lock(memory_mutex);
    auto found = allocations.upper_bound(start);
    if (found == allocations.begin()) return false;
    --found;
    return start + bytes <= found->first + found->second;
}

namespace {

CUresult device_range(const char *what, CUdeviceptr pointer, size_t bytes) {
    if (!current_context) return CUDA_ERROR_INVALID_CONTEXT;
    if (emulated_device_range(reinterpret_cast<void *>(pointer), bytes)) return CUDA_SUCCESS;
    fprintf(stderr, "emulator: %s of %zu bytes at %#llx, which no allocation holds\n", what, bytes, pointer);
    return CUDA_ERROR_INVALID_VALUE;
}

template <typename T> CUresult fill(CUdeviceptr to, T value, size_t count) {
    if (CUresult error = device_range("a memset", to, count * sizeof(T))) return error;
    std::fill_n(reinterpret_cast<T *>(to), count, value);
    return CUDA_SUCCESS;
}

CUresult copy(const char *what, const void *from, void *to, size_t bytes, bool device_from, bool device_to) {
    if (CUresult error = device_from ? device_range(what, reinterpret_cast<CUdeviceptr>(from), bytes) : CUDA_SUCCESS)
        return error;
    if (CUresult error = device_to ? device_range(what, reinterpret_cast<CUdeviceptr>(to), bytes) : CUDA_SUCCESS)
        return error;
    if (bytes) memmove(to, from, bytes);
    return CUDA_SUCCESS;
}

template <typename T> CUresult create(T *result) {
    if (!current_context) return CUDA_ERROR_INVALID_CONTEXT;
    *result = reinterpret_cast<T>(new char);
    return CUDA_SUCCESS;
}

template <typename T> CUresult give(T *result, T value) {
    if (!result) return CUDA_ERROR_INVALID_VALUE;
    *result = value;
    return CUDA_SUCCESS;
}

void *host(CUdeviceptr pointer) { return reinterpret_cast<void *>(pointer); }
Kernel *kernel(CUfunction function) { return reinterpret_cast<Kernel *>(function); }

struct Error {
    CUresult code;
    const char *name;
};
#define ERROR(code) {code, #code}
const Error ERRORS[] = {
    ERROR(CUDA_SUCCESS),
    ERROR(CUDA_ERROR_INVALID_VALUE),
    ERROR(CUDA_ERROR_OUT_OF_MEMORY),
    ERROR(CUDA_ERROR_NOT_INITIALIZED),
    ERROR(CUDA_ERROR_NO_DEVICE),
    ERROR(CUDA_ERROR_INVALID_DEVICE),
    ERROR(CUDA_ERROR_INVALID_CONTEXT),
    ERROR(CUDA_ERROR_INVALID_HANDLE),
    ERROR(CUDA_ERROR_NOT_FOUND),
    ERROR(CUDA_ERROR_NOT_READY),
    ERROR(CUDA_ERROR_NOT_SUPPORTED),
};
#undef ERROR

} // namespace

extern "C" {

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { return give(version, CUDA_VERSION); }

static CUresult error_name(CUresult error, const char **name) {
    for (const Error &known : ERRORS)
        if (known.code == error) return give(name, known.name);
    give(name, "an error the emulator never returns");
    return CUDA_ERROR_INVALID_VALUE;
}
CUresult cuGetErrorName(CUresult error, const char **name) { return error_name(error, name); }
CUresult cuGetErrorString(CUresult error, const char **name) { return error_name(error, name); }

CUresult cuDeviceGetCount(int *count) { return give(count, 1); }
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    return ordinal == 0 ? give(device, 0) : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDeviceGetName(char *name, int length, CUdevice) {
    snprintf(name, size_t(length), "emulated GPU");
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice) {
    memset(uuid, 0, sizeof *uuid);
    return CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice) { return give(bytes, size_t(total_memory())); }
CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
    if (!current_context) return CUDA_ERROR_INVALID_CONTEXT;
    std::lock_guard lock(memory_mutex);
    *available = total_memory() - used;
    return give(total, size_t(total_memory()));
}
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return give(value, 9);
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return give(value, 0);
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return give(value, 4);
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return give(value, 32);
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: return give(value, 1024);
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: return give(value, 64);
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: return give(value, INT_MAX);
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: return give(value, 65535);
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return give(value, 2048);
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: return give(value, 32);
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return give(value, int(emulated::DEFAULT_SHARED));
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: return give(value, int(emulated::MAX_SHARED));
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: return give(value, 228 << 10);
    case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK: return give(value, 1024);
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: return give(value, 65536);
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: return give(value, 50 << 20);
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: return give(value, 1);
    default: return give(value, 0);
    }
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) {
    return give(context, reinterpret_cast<CUcontext>(&the_context));
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *context) { return give(context, current_context); }
CUresult cuCtxSetCurrent(CUcontext context) {
    current_context = context;
    return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice *device) { return give(device, 0); }
CUresult cuCtxSetFlags(unsigned) { return CUDA_SUCCESS; }
CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    if (least) *least = 0;
    if (greatest) *greatest = 0;
    return CUDA_SUCCESS;
}
CUresult cuCtxSynchronize() { return current_context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT; }

// Everything is done when it is called: streams and events have nothing to wait for.
CUresult cuStreamCreate(CUstream *stream, unsigned) { return create(stream); }
CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned, int) { return create(stream); }
CUresult cuStreamDestroy_v2(CUstream stream) {
    delete reinterpret_cast<char *>(stream);
    return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamQuery(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamWaitEvent(CUstream, CUevent event, unsigned) { return event ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE; }
CUresult cuStreamIsCapturing(CUstream, CUstreamCaptureStatus *status) {
    return give(status, CU_STREAM_CAPTURE_STATUS_NONE);
}
CUresult cuLaunchHostFunc(CUstream, CUhostFn function, void *data) {
    function(data);
    return CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent *event, unsigned) {
    if (!current_context) return CUDA_ERROR_INVALID_CONTEXT;
    return give(event, reinterpret_cast<CUevent>(new Event));
}
CUresult cuEventDestroy_v2(CUevent event) {
    delete reinterpret_cast<Event *>(event);
    return CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent event, CUstream) {
    if (!event) return CUDA_ERROR_INVALID_HANDLE;
    *reinterpret_cast<Event *>(event) = {std::chrono::steady_clock::now(), true};
    return CUDA_SUCCESS;
}
CUresult cuEventQuery(CUevent event) { return event ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE; }
CUresult cuEventSynchronize(CUevent event) { return cuEventQuery(event); }
CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end) {
    const Event *a = reinterpret_cast<Event *>(start), *b = reinterpret_cast<Event *>(end);
    if (!a || !b || !a->recorded || !b->recorded) return CUDA_ERROR_INVALID_HANDLE;
    return give(milliseconds, std::chrono::duration<float, std::milli>(b->time - a->time).count());
}

CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
    return bytes ? allocate(pointer, bytes) : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMemAllocAsync(CUdeviceptr *pointer, size_t bytes, CUstream) { return allocate(pointer, bytes); }
CUresult cuMemAllocFromPoolAsync(CUdeviceptr *pointer, size_t bytes, CUmemoryPool, CUstream) {
    return allocate(pointer, bytes);
}
CUresult cuMemFree_v2(CUdeviceptr pointer) { return release(pointer); }
CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream) { return release(pointer); }

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice) {
    return give(pool, reinterpret_cast<CUmemoryPool>(&the_pool));
}
CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device) { return cuDeviceGetDefaultMemPool(pool, device); }
CUresult cuDeviceSetMemPool(CUdevice, CUmemoryPool) { return CUDA_SUCCESS; }
CUresult cuMemPoolTrimTo(CUmemoryPool, size_t) { return CUDA_SUCCESS; }
CUresult cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void *value) {
    std::lock_guard lock(memory_mutex);
    switch (attribute) {
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: return give(static_cast<uint64_t *>(value), used);
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: return give(static_cast<uint64_t *>(value), used_high);
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: return give(static_cast<uint64_t *>(value), uint64_t(0));
    default: return give(static_cast<int *>(value), 1);
    }
}
CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute attribute, void *value) {
    if (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH || attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH) {
        // The driver takes a zero alone, which sets the mark to what is in use.
        if (*static_cast<uint64_t *>(value)) return CUDA_ERROR_INVALID_VALUE;
        std::lock_guard lock(memory_mutex);
        used_high = used;
    }
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    if (!current_context) return CUDA_ERROR_INVALID_CONTEXT;
    if (!bytes) return CUDA_ERROR_INVALID_VALUE;
    if (posix_memalign(pointer, 4096, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    std::lock_guard lock(memory_mutex);
    pinned[*pointer] = flags;
    return CUDA_SUCCESS;
}
CUresult cuMemAllocHost_v2(void **pointer, size_t bytes) { return cuMemHostAlloc(pointer, bytes, 0); }
CUresult cuMemFreeHost(void *pointer) {
    std::lock_guard lock(memory_mutex);
    if (!pinned.erase(pointer)) return CUDA_ERROR_INVALID_VALUE;
    free(pointer);
    return CUDA_SUCCESS;
}
CUresult cuMemHostGetFlags(unsigned *flags, void *pointer) {
    std::lock_guard lock(memory_mutex);
    auto found = pinned.find(pointer);
    return found == pinned.end() ? CUDA_ERROR_INVALID_VALUE : give(flags, found->second);
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
    return copy("a copy to the device", from, host(to), bytes, false, true);
}
CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
    return copy("a copy to the host", host(from), to, bytes, true, false);
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    return copy("a copy on the device", host(from), host(to), bytes, true, true);
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream) {
    return cuMemcpyHtoD_v2(to, from, bytes);
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream) {
    return cuMemcpyDtoH_v2(to, from, bytes);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream) {
    return cuMemcpyDtoD_v2(to, from, bytes);
}
CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) { return fill(to, value, count); }
CUresult cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t count) { return fill(to, value, count); }
CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count) { return fill(to, value, count); }
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream) { return fill(to, value, count); }
CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream) {
    return fill(to, value, count);
}
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream) { return fill(to, value, count); }

// Every kernel of the emulator is in every module.
CUresult cuModuleLoadData(CUmodule *module, const void *) {
    if (!current_context) return CUDA_ERROR_INVALID_CONTEXT;
    return give(module, reinterpret_cast<CUmodule>(&the_module));
}
CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule, const char *name) {
    if (Kernel *found = emulated::find_kernel(name)) return give(function, reinterpret_cast<CUfunction>(found));
    fprintf(stderr, "emulator: no kernel is called %s\n", name);
    return CUDA_ERROR_NOT_FOUND;
}
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
    if (value < 0 || size_t(value) > emulated::MAX_SHARED) {
        fprintf(stderr, "emulator: %s cannot have %d bytes of dynamic shared memory\n", kernel(function)->name, value);
        return CUDA_ERROR_INVALID_VALUE;
    }
    kernel(function)->max_dynamic_shared = size_t(value);
    return CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: return give(value, 1024);
    case CU_FUNC_ATTRIBUTE_NUM_REGS: return give(value, 32);
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION: return give(value, 90);
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        return give(value, int(kernel(function)->max_dynamic_shared));
    default: return give(value, 0);
    }
}
// Not declared in cuda.h.
CUresult cuProfilerStart() { return CUDA_SUCCESS; }
CUresult cuProfilerStop() { return CUDA_SUCCESS; }
CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared, CUstream, void **parameters,
                        void **extra) {
    if (!current_context) return CUDA_ERROR_INVALID_CONTEXT;
    if (extra) return CUDA_ERROR_NOT_SUPPORTED;
    const Kernel &called = *kernel(function);
    const uint64_t threads = uint64_t(block_x) * block_y * block_z;
    const bool grid_fits = grid_x && grid_y && grid_z && grid_x <= INT_MAX && grid_y <= 65535 && grid_z <= 65535;
    const bool block_fits = threads && threads <= 1024 && block_z <= 64;
    static const bool trace = getenv("STILLROOM_EMULATED_TRACE");
    if (!grid_fits || !block_fits || shared > called.max_dynamic_shared) {
        fprintf(stderr,
                "emulator: %s cannot be launched with a grid of (%u, %u, %u), blocks of (%u, %u, %u) and %u bytes of "
                "dynamic shared memory (%zu allowed)\n",
                called.name, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, called.max_dynamic_shared);
        return CUDA_ERROR_INVALID_VALUE;
    }
    const auto start = std::chrono::steady_clock::now();
    emulated::launch(called, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, parameters);
    if (trace)
        fprintf(stderr, "emulator: %s (%u, %u, %u) x (%u, %u, %u), %u bytes, %.3f ms\n", called.name, grid_x, grid_y,
                grid_z, block_x, block_y, block_z, shared,
                std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    return CUDA_SUCCESS;
}

// By threads and shared memory alone: nobody knows what registers a kernel would take.
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, CUfunction, int threads, size_t shared,
                                                              unsigned) {
    if (threads <= 0 || threads > 1024) return CUDA_ERROR_INVALID_VALUE;
    return give(blocks, int(std::min<size_t>({size_t(2048 / threads), 32, (228 << 10) / (shared + 1024)})));
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads, size_t shared) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, 0);
}
CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *threads, CUfunction, CUoccupancyB2DSize, size_t,
                                                   int limit, unsigned) {
    *threads = limit > 0 ? std::min(limit, 1024) : 1024;
    return give(grid, 4 * (2048 / *threads));
}
CUresult cuOccupancyMaxPotentialBlockSize(int *grid, int *threads, CUfunction function, CUoccupancyB2DSize size,
                                          size_t shared, int limit) {
    return cuOccupancyMaxPotentialBlockSizeWithFlags(grid, threads, function, size, shared, limit, 0);
}

} // extern "C"
