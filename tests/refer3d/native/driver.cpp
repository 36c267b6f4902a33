// NVIDIA's driver as far as cuda-core asks it on the way to a launch. It computes nothing; it
// prints what it is told, a line of JSON each.
#include <dlfcn.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

constexpr int kOk = 0, kNoContext = 201, kNotFound = 500;
char context;  // there is one; its address is its name
thread_local void* current = nullptr;

struct Launch {
  unsigned grid[3], block[3], shared;
  void* stream;
  void* attributes;
  unsigned num_attributes;
};

}  // namespace

extern "C" {

int cuInit(unsigned) { return kOk; }
int cuDriverGetVersion(int* version) { return *version = 13000, kOk; }
int cuDeviceGetCount(int* count) { return *count = 1, kOk; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, kOk; }
int cuDevicePrimaryCtxRetain(void** out, int) { return *out = &context, kOk; }
int cuDevicePrimaryCtxRelease_v2(int) { return kOk; }
int cuDevicePrimaryCtxRelease(int) { return kOk; }
int cuCtxSetCurrent(void* wanted) { return current = wanted, kOk; }
int cuCtxGetCurrent(void** out) { return *out = current, kOk; }
int cuCtxGetDevice(int* device) { return *device = 0, current ? kOk : kNoContext; }
int cuGetExportTable(const void** table, const void*) { return *table = nullptr, kNotFound; }
int cuGetErrorName(int, const char** text) { return *text = "ERROR", kOk; }
int cuGetErrorString(int, const char** text) { return *text = "of the pretended driver", kOk; }

// A library is the code that it was loaded from, a kernel a copy of its name, which is never freed.
int cuLibraryLoadData(void** library, const void* code, void*, void*, unsigned, void*, void*,
                      unsigned) {
  return *library = const_cast<void*>(code), current ? kOk : kNoContext;
}
int cuLibraryUnload(void*) { return kOk; }
int cuLibraryGetKernel(void** kernel, void*, const char* name) {
  char* copy = nullptr;
  if (asprintf(&copy, "%s", name) < 0) std::abort();
  return *kernel = copy, kOk;
}

// Eight bytes of each argument, as many as NUM_ARGUMENTS says: a driver knows it from the code.
int cuLaunchKernelEx(const Launch* launch, void* kernel, void** arguments, void**) {
  if (!current) return kNoContext;
  std::printf("{\"kernel\": \"%s\", \"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], ",
              static_cast<const char*>(kernel), launch->grid[0], launch->grid[1], launch->grid[2],
              launch->block[0], launch->block[1], launch->block[2]);
  std::printf("\"stream\": %" PRIuPTR ", \"arguments\": [",
              reinterpret_cast<uintptr_t>(launch->stream));
  const int count = std::atoi(std::getenv("NUM_ARGUMENTS"));
  for (int i = 0; i < count; ++i) {
    std::printf("%s%" PRId64, i ? ", " : "", *static_cast<const int64_t*>(arguments[i]));
  }
  std::printf("]}\n");
  return std::fflush(stdout), kOk;
}

// Whatever is not here the driver does not have.
int cuGetProcAddress_v2(const char* name, void** function, int, uint64_t, int* found) {
  Dl_info own;
  dladdr(reinterpret_cast<void*>(&cuInit), &own);
  *function = dlsym(dlopen(own.dli_fname, RTLD_LAZY), name);
  if (found) *found = *function ? 0 : 1;
  return *function ? kOk : kNotFound;
}
int cuGetProcAddress(const char* name, void** function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}

}  // extern "C"
