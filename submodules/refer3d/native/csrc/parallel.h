// Loops on all cores, with std::thread alone: no OpenMP runtime is needed, and none clashes with
// torch's.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#ifndef _WIN32
#include <pthread.h>
#endif

namespace refer {

// Threads that wait between loops, since starting them costs more than many of the loops.
// One loop runs at a time; the pool is never destroyed, because its threads may outlive main().
class ThreadPool {
 public:
  static ThreadPool& instance() {
    static std::once_flag once;
    std::call_once(once, [] {
      current() = new ThreadPool;
#ifndef _WIN32
      // A forked child has none of the threads, and perhaps locked mutexes: it starts afresh.
      pthread_atfork(nullptr, nullptr, [] { current() = new ThreadPool; });
#endif
    });
    return *current();
  }

  // True in a thread that is inside a loop's body.
  static bool& busy() {
    thread_local bool inside = false;
    return inside;
  }

  // Calls work() in this thread and in up to `helpers` others, and returns when all calls have.
  // Returns false without calling it where another thread's loop has the pool.
  bool run(int helpers, const std::function<void()>& work) {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) return false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      start(helpers);
      work_ = &work;
      wanted_ = running_ = std::min(helpers, started_);
    }
    wake_.notify_all();
    work();
    std::unique_lock<std::mutex> lock(mutex_);
    running_ -= wanted_;  // who has not begun by now would find nothing left to do
    wanted_ = 0;
    done_.wait(lock, [this] { return running_ == 0; });
    return true;
  }

 private:
  static ThreadPool*& current() {
    static ThreadPool* pool = nullptr;
    return pool;
  }

  void start(int helpers) {
    try {
      for (; started_ < helpers; ++started_) std::thread([this] { wait_for_work(); }).detach();
    } catch (const std::system_error&) {
      // The machine grants no more threads: those that there are do the work.
    }
  }

  void wait_for_work() {
    busy() = true;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return wanted_ > 0; });
      --wanted_;
      const std::function<void()>& work = *work_;
      lock.unlock();
      work();
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex turn_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const std::function<void()>* work_ = nullptr;
  int started_ = 0;
  int wanted_ = 0;   // helpers that have yet to take up the current work
  int running_ = 0;  // helpers that have yet to finish it
};

// Calls body(begin, end) for consecutive ranges of `grain` that together cover 0..count, on up to
// `threads` threads in no fixed order. The ranges do not depend on the number of threads, so sums
// that are kept by range are reproducible. The first exception of a body is thrown here. Loops
// inside a body run in its own thread.
template <typename Body>
void parallel_for(int64_t count, int64_t grain, int threads, const Body& body) {
  grain = std::max<int64_t>(grain, 1);
  const int64_t ranges = (count + grain - 1) / grain;
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::once_flag failed;
  const auto work = [&] {
    try {
      for (int64_t i = next++; i < ranges; i = next++) {
        body(i * grain, std::min(count, (i + 1) * grain));
      }
    } catch (...) {
      next = ranges;
      std::call_once(failed, [&] { failure = std::current_exception(); });
    }
  };
  bool& busy = ThreadPool::busy();
  const int helpers = static_cast<int>(std::min<int64_t>(threads, ranges)) - 1;
  if (busy || helpers < 1) {
    work();
  } else {
    struct Guard {  // also where no memory is left to start the work
      bool& busy;
      explicit Guard(bool& busy) : busy(busy) { busy = true; }
      ~Guard() { busy = false; }
    } guard(busy);
    if (!ThreadPool::instance().run(helpers, work)) work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace refer
