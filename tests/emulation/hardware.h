// CUDA's words on a CPU, for testing: the threads of a block are fibers that take turns between
// synchronisation points, so a kernel does the same on every run. What a GPU leaves undefined is an
// error here: lanes or threads that meet at different lines, or wait for one that has returned.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
// All in one place, so that a block begins with memory that holds nothing it could take for its
// own.
#define __shared__ static __attribute__((section("shared_memory")))

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

extern char __start_shared_memory[] __attribute__((weak));
extern char __stop_shared_memory[] __attribute__((weak));

namespace emulation {

constexpr size_t kStack = 1 << 16;
constexpr int kLanes = 32;

// Threads that wait for each other: `generation` counts how often all of them have met.
struct Meeting {
  int arrived = 0, line = 0;
  unsigned generation = 0;
  int sum[2] = {};  // of what the threads brought, by the generation's parity
};

struct Warp {
  Meeting meeting;
  uint64_t slots[2][kLanes];
};

struct Fiber {
  ucontext_t start;
  jmp_buf state;
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool is_started, is_done;
  const unsigned* generation;  // waits until this is no longer `seen`
  unsigned seen;
};

static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static Meeting block_meeting;
static jmp_buf scheduler;
static int current, running;
static std::string failure;
static void (*body)(const void*);
static const void* body_arguments;

[[noreturn]] inline void fail(const std::string& reason) {
  failure = reason + " (block " + std::to_string(blockIdx.x) + "," + std::to_string(blockIdx.y) +
            ", thread " + std::to_string(current) + ")";
  _longjmp(scheduler, 2);
}

// Comes back when everybody who takes part has called it from the same line.
inline void meet(Meeting& meeting, int participants, int line) {
  if (meeting.arrived == 0) meeting.line = line;
  if (meeting.line != line) {
    fail("threads meet at lines " + std::to_string(meeting.line) + " and " + std::to_string(line));
  }
  if (++meeting.arrived == participants) {
    meeting.arrived = 0;
    ++meeting.generation;
    return;
  }
  Fiber& self = fibers[current];
  self.generation = &meeting.generation;
  self.seen = meeting.generation;
  if (_setjmp(self.state) == 0) _longjmp(scheduler, 1);
}

inline int synchronize(int line, int value) {
  Meeting& m = block_meeting;
  const unsigned parity = m.generation & 1;
  if (m.arrived == 0) m.sum[parity] = 0;
  m.sum[parity] += value;
  meet(m, int(fibers.size()), line);
  return m.sum[parity];
}

inline Warp& own_warp(unsigned mask) {
  if (mask != 0xffffffffu) fail("only whole warps are emulated");
  return warps[current / kLanes];
}

// Gives a value to the warp, and returns all lanes'.
template <typename T>
const uint64_t* exchange(unsigned mask, T value, int line) {
  static_assert(sizeof(T) <= 8, "a shuffle takes up to eight bytes");
  Warp& warp = own_warp(mask);
  uint64_t* const slots = warp.slots[warp.meeting.generation & 1];
  memcpy(&slots[current % kLanes], &value, sizeof(T));
  meet(warp.meeting, kLanes, line);
  return slots;
}

template <typename T>
T shuffle(unsigned mask, T value, int source, int line) {
  T result;
  memcpy(&result, &exchange(mask, value, line)[source & (kLanes - 1)], sizeof(T));
  return result;
}

template <typename T>
T shuffle_up(unsigned mask, T value, int by, int line) {
  const int lane = current % kLanes;
  return shuffle(mask, value, lane < by ? lane : lane - by, line);
}

template <typename T>
T shuffle_down(unsigned mask, T value, int by, int line) {
  const int lane = current % kLanes;
  return shuffle(mask, value, lane + by < kLanes ? lane + by : lane, line);
}

inline unsigned ballot(unsigned mask, bool value, int line) {
  const uint64_t* const slots = exchange(mask, uint64_t(value), line);
  unsigned bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= unsigned(slots[i]) << i;
  return bits;
}

inline void enter() {
  body(body_arguments);
  fibers[current].is_done = true;
  --running;
  _longjmp(scheduler, 1);
}

inline void resume(int thread) {
  Fiber& fiber = fibers[thread];
  current = thread;
  threadIdx = {unsigned(thread), 0, 0};
  if (fiber.is_started) _longjmp(fiber.state, 1);
  fiber.is_started = true;
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack.get();
  fiber.start.uc_stack.ss_size = kStack;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, enter, 0);
  setcontext(&fiber.start);
}

// Lets a thread run until it waits, if it does not wait already. Returns whether it has run.
inline bool let_run(int thread) {
  const Fiber& fiber = fibers[thread];
  if (fiber.is_done || (fiber.generation && *fiber.generation == fiber.seen)) return false;
  fibers[thread].generation = nullptr;
  if (_setjmp(scheduler) == 0) resume(thread);
  return true;
}

// Runs a block: each warp in turn as far as it can go without the others, so that what they have
// not written yet is missing; in the order of the threads' numbers, or against it.
inline void run_block(bool backwards) {
  const int count = int(fibers.size());
  if (__start_shared_memory) {
    memset(__start_shared_memory, 0xff, __stop_shared_memory - __start_shared_memory);
  }
  block_meeting = {};
  for (Warp& warp : warps) warp = {};
  for (Fiber& fiber : fibers) {
    fiber.is_started = fiber.is_done = false;
    fiber.generation = nullptr;
  }
  running = count;
  while (running > 0) {
    bool has_run = false;
    for (int first = 0; first < count; first += kLanes) {
      for (bool goes_on = true; goes_on;) {
        goes_on = false;
        for (int turn = first; turn < first + kLanes; ++turn) {
          goes_on |= let_run(backwards ? count - 1 - turn : turn);
          if (!failure.empty()) return;
        }
        has_run |= goes_on;
      }
    }
    if (!has_run) {
      failure = "threads wait for some that have returned, or meet elsewhere";
      return;
    }
  }
}

// Kinds of parameters: l an int64_t, d a double, and for pointers a capital or a digit.
template <typename P>
struct Kind;
#define REFER_KIND(type, kind)          \
  template <>                           \
  struct Kind<type> {                   \
    static constexpr char value = kind; \
  };
REFER_KIND(int64_t, 'l')
REFER_KIND(double, 'd')
REFER_KIND(float*, 'F')
REFER_KIND(double*, 'D')
REFER_KIND(uint8_t*, '1')
REFER_KIND(int16_t*, '2')
REFER_KIND(uint16_t*, 'H')
REFER_KIND(int32_t*, '4')
REFER_KIND(int64_t*, '8')
template <typename P>
struct Kind<const P*> : Kind<P*> {};

template <typename... P, size_t... I>
void call(void (*kernel)(P...), const uint64_t* values, std::index_sequence<I...>) {
  std::tuple<P...> arguments;
  (void)std::initializer_list<int>{
      (memcpy(&std::get<I>(arguments), &values[I], sizeof(uint64_t)), 0)...};
  kernel(std::get<I>(arguments)...);
}

// Runs a kernel whose arguments are of `kinds`, 0 for null. Returns what went wrong, or null.
template <typename... P>
const char* launch(void (*kernel)(P...), const uint64_t* values, const char* kinds, unsigned grid_x,
                   unsigned grid_y, unsigned threads, bool backwards) {
  const std::string expected{Kind<P>::value...};
  const std::string given = kinds;
  failure.clear();
  bool fits = expected.size() == given.size();
  for (size_t i = 0; fits && i < given.size(); ++i) {
    fits = given[i] == expected[i] || (given[i] == '0' && expected[i] < 'a');
  }
  if (!fits) {
    failure = "the kernel takes " + expected + ", not " + given;
    return failure.c_str();
  }
  if (threads % kLanes != 0 || threads > 1024 || threads == 0 || grid_x == 0 || grid_y == 0) {
    failure = "blocks must be of whole warps, at most 32, and a grid must have some";
    return failure.c_str();
  }
  struct Arguments {
    void (*kernel)(P...);
    const uint64_t* values;
  } arguments{kernel, values};
  body_arguments = &arguments;
  body = [](const void* pointer) {
    const auto& a = *static_cast<const Arguments*>(pointer);
    call(a.kernel, a.values, std::index_sequence_for<P...>());
  };
  if (fibers.size() != threads) {
    fibers = std::vector<Fiber>(threads);
    warps = std::vector<Warp>(threads / kLanes);
  }
  gridDim = {grid_x, grid_y, 1};
  blockDim = {threads, 1, 1};
  for (unsigned y = 0; y < grid_y && failure.empty(); ++y) {
    for (unsigned x = 0; x < grid_x && failure.empty(); ++x) {
      blockIdx = {x, y, 0};
      run_block(backwards);
    }
  }
  return failure.empty() ? nullptr : failure.c_str();
}

}  // namespace emulation

// The function that Python calls to run a kernel.
#define REFER_EMULATE(kernel)                                                                    \
  extern "C" const char* emulate_##kernel(const uint64_t* values, const char* kinds, unsigned x, \
                                          unsigned y, unsigned threads, bool backwards) {        \
    return emulation::launch(refer::kernel, values, kinds, x, y, threads, backwards);            \
  }

#define __syncthreads() ((void)emulation::synchronize(__LINE__, 0))
#define __syncthreads_count(value) emulation::synchronize(__LINE__, (value) ? 1 : 0)
#define __syncwarp() ((void)emulation::ballot(0xffffffffu, true, __LINE__))
#define __shfl_sync(mask, value, source) emulation::shuffle(mask, value, source, __LINE__)
#define __shfl_xor_sync(mask, value, bits) \
  emulation::shuffle(mask, value, (emulation::current % 32) ^ (bits), __LINE__)
#define __shfl_up_sync(mask, value, by) emulation::shuffle_up(mask, value, by, __LINE__)
#define __shfl_down_sync(mask, value, by) emulation::shuffle_down(mask, value, by, __LINE__)
#define __ballot_sync(mask, value) emulation::ballot(mask, value, __LINE__)
#define __any_sync(mask, value) (emulation::ballot(mask, value, __LINE__) != 0)
#define __all_sync(mask, value) (emulation::ballot(mask, value, __LINE__) == 0xffffffffu)

// One thread runs at a time: nothing can come between.
template <typename T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to = before + value;
  return before;
}
template <typename T>
T atomicMax(T* to, T value) {
  const T before = *to;
  *to = std::max(before, value);
  return before;
}
template <typename T>
T atomicOr(T* to, T value) {
  const T before = *to;
  *to = before | value;
  return before;
}
template <typename T>
T atomicCAS(T* to, T expected, T value) {
  const T before = *to;
  if (before == expected) *to = value;
  return before;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(int(x)); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
template <typename T>
T __ldg(const T* from) {
  return *from;
}
using std::abs;
using std::ceil;
using std::exp;
using std::exp2;
using std::floor;
using std::fma;
using std::fmax;
using std::fmin;
using std::log;
using std::max;
using std::min;
using std::sqrt;

namespace refer {

enum Precision { kPlain, kTf32, kBfloat16, kFloat16 };

template <typename T>
T quick_exp2(T x) {
  return exp2(x);
}
template <typename T>
T quick_ratio(T x, T y) {
  return x / y;
}

inline uint32_t to_tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (bits + 0x1000) & ~0x1fffu;  // to the nearest of ten bits, away from zero
}
inline uint32_t to_bfloat16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline uint32_t to_float16(float x) {
  const _Float16 half = _Float16(x);
  uint16_t bits;
  memcpy(&bits, &half, 2);
  return bits;
}
inline float from_tf32(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
inline float from_bfloat16(uint32_t bits) { return from_tf32(bits << 16); }
inline float from_float16(uint32_t bits) {
  const uint16_t low = uint16_t(bits);
  _Float16 half;
  memcpy(&half, &low, 2);
  return float(half);
}

// Adds a b to the sums as PTX defines it: a lane's registers hold these places of a [16, K] and
// b [K, 8]; its sums are of two rows and two columns.
template <Precision kPrecision>
void multiply_fragments(const uint32_t a[4], const uint32_t b[2], float* upper_row,
                        float* lower_row) {
  constexpr int kDepth = kPrecision == kTf32 ? 8 : 16, kEach = kDepth / 8;
  uint64_t registers[3][emulation::kLanes];
  const uint32_t own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  for (int i = 0; i < 3; ++i) {
    const uint64_t pair = own[2 * i] | uint64_t(own[2 * i + 1]) << 32;
    memcpy(registers[i], emulation::exchange(0xffffffffu, pair, __LINE__), sizeof(registers[i]));
  }
  const auto value = [&](int index, int lane, int part) {
    const uint32_t bits = uint32_t(registers[index / 2][lane] >> (32 * (index % 2)));
    if (kPrecision == kTf32) return from_tf32(bits);
    const uint32_t half = bits >> (16 * part) & 0xffff;
    return kPrecision == kBfloat16 ? from_bfloat16(half) : from_float16(half);
  };
  const int lane = emulation::current % emulation::kLanes;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < kDepth; ++k) {
      const int upper = k / (kDepth / 2), quad = k % (kDepth / 2) / kEach, part = k % kEach;
      (i < 2 ? upper_row : lower_row)[i % 2] +=
          value(2 * upper + row / 8, row % 8 * 4 + quad, part) *
          value(4 + upper, column * 4 + quad, part);
    }
  }
}

}  // namespace refer
