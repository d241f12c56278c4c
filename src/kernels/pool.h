// The threads that compute. One job at a time; the caller is one of them.
#pragma once

#include <cstddef>
#include <functional>

namespace bitctl {

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const;
  // work(begin, end) for pieces that cover 0 … count, each at most `grain` long, in any order and by any
  // thread; returns when all are done. A thread that is held up delays one piece.
  void run(size_t count, size_t grain, const std::function<void(size_t begin, size_t end)>& work);

 private:
  int threads_;
};

}  // namespace bitctl
