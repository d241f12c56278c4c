// The threads that compute. One job at a time; the caller is one of them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace bitctl {

class Pool {
 public:
  // Starts all but the caller, which is one of them, with signals blocked. Fewer than one count as one.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }
  // Between jobs, by the thread that runs them: starts or ends threads, some 0.1 ms each.
  void set_threads(int threads);

  // work(begin, end) for pieces that cover 0 … count, each `grain` long but for the last, in any order and by
  // any thread; returns when all are done. A thread that is held up delays one piece. Denormal floats count
  // as zero meanwhile. `work` must not throw and not run another job. Allocates nothing; a thread without
  // work spins for 30 us and then sleeps. `count` / `grain` is below 2^32.
  template <class Work>
  void run(size_t count, size_t grain, Work&& work) {
    using Function = std::remove_reference_t<Work>;
    run_job({count, grain,
             [](const void* at, size_t begin, size_t end) {
               (*static_cast<Function*>(const_cast<void*>(at)))(begin, end);
             },
             &work});
  }

 private:
  struct Job {
    size_t count = 0;
    size_t grain = 1;
    void (*call)(const void* work, size_t begin, size_t end) = nullptr;
    const void* work = nullptr;
  };

  void run_job(const Job& job);
  void publish(const Job& job, uint32_t pieces);
  // Claims and does pieces of the job of that number until none is left.
  void work_on(uint32_t number);
  void wait_for_pieces(uint32_t pieces);
  void worker(int index);

  int threads_ = 1;
  std::vector<std::thread> workers_;

  // Written only while no piece is unclaimed: a worker that is late may read another job's, but then claims
  // none.
  std::atomic<size_t> count_{0}, grain_{1};
  std::atomic<void (*)(const void*, size_t, size_t)> call_{nullptr};
  std::atomic<const void*> work_{nullptr};
  std::atomic<uint32_t> pieces_{0};

  std::atomic<int> wanted_{1};                      // a worker of that index or more ends
  alignas(64) std::atomic<uint64_t> unclaimed_{0};  // the job's number above how many of its pieces
  alignas(64) std::atomic<uint32_t> job_{0};        // its number again: what workers wait for
  alignas(64) std::atomic<uint32_t> done_{0};
};

}  // namespace bitctl
