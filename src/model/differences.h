// What keeps a file's tensors from being those that config.json speaks of: the first few, in one line.
#pragma once

#include <string>

namespace bitctl {

class Differences {
 public:
  void add(const std::string& difference) {
    if (++count_ <= kShown) text_ += (text_.empty() ? "" : "; ") + difference;
  }
  bool none() const { return count_ == 0; }
  std::string text() const {
    const std::string more = count_ > kShown ? "; and " + std::to_string(count_ - kShown) + " more" : "";
    return "the tensors are not those of config.json: " + text_ + more;
  }

 private:
  static constexpr int kShown = 5;
  int count_ = 0;
  std::string text_;
};

}  // namespace bitctl
