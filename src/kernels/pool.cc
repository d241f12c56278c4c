#include "kernels/pool.h"

#include <algorithm>

namespace bitctl {

Pool::Pool(int threads) : threads_(threads) {}
Pool::~Pool() = default;
int Pool::threads() const { return threads_; }

void Pool::run(size_t count, size_t grain, const std::function<void(size_t, size_t)>& work) {
  for (size_t begin = 0; begin < count; begin += grain) work(begin, std::min(count, begin + grain));
}

}  // namespace bitctl
