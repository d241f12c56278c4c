#include "supervise/output_watch.h"

#include <sys/stat.h>

namespace bitctl {

OutputWatch::OutputWatch(EventLoop& loop, std::function<void()> on_growth)
    : loop_(loop), on_growth_(std::move(on_growth)), inbox_(loop) {}

OutputWatch::~OutputWatch() { stop(); }

void OutputWatch::start(std::string path) {
  stop();
  path_ = std::move(path);
  size_ = 0;
  look();
}

void OutputWatch::stop() {
  loop_.cancel(timer_);
  path_.clear();
}

void OutputWatch::look() {
  reader_.post([this, path = path_] {
    struct stat st {};
    const int64_t size = ::stat(path.c_str(), &st) == 0 ? st.st_size : 0;
    inbox_.post([this, path, size] { take(path, size); });
  });
}

// The next look only after this one: a disk that does not answer piles up no work.
void OutputWatch::take(const std::string& path, int64_t size) {
  if (path != path_) return;
  if (size > size_) on_growth_();
  size_ = size;
  timer_ = loop_.call_after(std::chrono::seconds(1), [this] { look(); });
}

}  // namespace bitctl
