#include "kernels/pool.h"

#include <fmt/format.h>
#include <pthread.h>
#include <xmmintrin.h>

#include <algorithm>
#include <chrono>

#include "base/blocked_signals.h"

namespace bitctl {
namespace {

constexpr std::chrono::microseconds kSpin{30};

// Arithmetic on denormals is many times slower, and no weight depends on them.
class DenormalsAreZero {
 public:
  DenormalsAreZero() { _mm_setcsr(before_ | kFlushToZero | kDenormalsAreZero); }
  ~DenormalsAreZero() { _mm_setcsr(before_); }
  DenormalsAreZero(const DenormalsAreZero&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 1 << 15, kDenormalsAreZero = 1 << 6;
  const unsigned before_ = _mm_getcsr();
};

// Whether it came true within kSpin.
template <class Condition>
bool spin_until(Condition&& condition) {
  constexpr int kLooksAClock = 16;  // the clock costs as much as some looks
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int look = 0; look < kLooksAClock; ++look) {
      if (condition()) return true;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

Pool::Pool(int threads) { set_threads(threads); }

Pool::~Pool() { set_threads(1); }

void Pool::set_threads(int threads) {
  threads_ = std::max(threads, 1);
  wanted_.store(threads_, std::memory_order_relaxed);
  if (workers_.size() + 1 > static_cast<size_t>(threads_)) {
    publish({}, 0);
    for (size_t i = threads_ - 1; i < workers_.size(); ++i) workers_[i].join();
    workers_.resize(threads_ - 1);
  }
  const BlockedSignals blocked;
  while (workers_.size() + 1 < static_cast<size_t>(threads_))
    workers_.emplace_back([this, index = static_cast<int>(workers_.size()) + 1] { worker(index); });
}

void Pool::run_job(const Job& job) {
  const DenormalsAreZero denormals;
  const auto pieces = static_cast<uint32_t>((job.count + job.grain - 1) / job.grain);
  if (pieces <= 1 || threads_ == 1) {
    for (size_t begin = 0; begin < job.count; begin += job.grain)
      job.call(job.work, begin, std::min(job.count, begin + job.grain));
    return;
  }
  publish(job, pieces);
  work_on(job_.load(std::memory_order_relaxed));
  wait_for_pieces(pieces);
}

void Pool::publish(const Job& job, uint32_t pieces) {
  count_.store(job.count, std::memory_order_relaxed);
  grain_.store(job.grain, std::memory_order_relaxed);
  call_.store(job.call, std::memory_order_relaxed);
  work_.store(job.work, std::memory_order_relaxed);
  pieces_.store(pieces, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  const uint32_t number = job_.load(std::memory_order_relaxed) + 1;
  unclaimed_.store(uint64_t{number} << 32 | pieces, std::memory_order_release);
  job_.store(number, std::memory_order_release);
  job_.notify_all();
}

void Pool::work_on(uint32_t number) {
  uint64_t unclaimed = unclaimed_.load(std::memory_order_acquire);
  while (unclaimed >> 32 == number && static_cast<uint32_t>(unclaimed) > 0) {
    const Job job = {count_.load(std::memory_order_relaxed), grain_.load(std::memory_order_relaxed),
                     call_.load(std::memory_order_relaxed), work_.load(std::memory_order_relaxed)};
    const uint32_t pieces = pieces_.load(std::memory_order_relaxed);
    if (!unclaimed_.compare_exchange_weak(unclaimed, unclaimed - 1, std::memory_order_acq_rel,
                                          std::memory_order_acquire))
      continue;
    const size_t begin = (pieces - static_cast<uint32_t>(unclaimed)) * job.grain;
    job.call(job.work, begin, std::min(job.count, begin + job.grain));
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == pieces) done_.notify_one();
    unclaimed = unclaimed_.load(std::memory_order_acquire);
  }
}

void Pool::wait_for_pieces(uint32_t pieces) {
  const auto all_done = [&] { return done_.load(std::memory_order_acquire) == pieces; };
  if (spin_until(all_done)) return;
  for (uint32_t done; (done = done_.load(std::memory_order_acquire)) != pieces;)
    done_.wait(done, std::memory_order_acquire);
}

void Pool::worker(int index) {
  ::pthread_setname_np(::pthread_self(), fmt::format("bitctl-pool-{}", index).c_str());
  const DenormalsAreZero denormals;
  uint32_t seen = 0;
  while (true) {
    const auto is_new = [&] { return job_.load(std::memory_order_acquire) != seen; };
    if (!spin_until(is_new)) job_.wait(seen, std::memory_order_acquire);
    seen = job_.load(std::memory_order_acquire);
    if (index >= wanted_.load(std::memory_order_relaxed)) return;
    work_on(seen);
  }
}

}  // namespace bitctl
