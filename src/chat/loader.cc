#include "chat/loader.h"

#include <exception>

namespace bitctl {

Loader::~Loader() {
  if (thread_.joinable()) thread_.join();
}

void Loader::start(const std::string& path) {
  if (thread_.joinable()) thread_.join();
  thread_ = std::thread([this, path] { run(path); });
}

void Loader::run(const std::string& path) {
  const auto progress = [this](uint64_t bytes, uint64_t total) { events_.post(BytesLoaded{bytes, total}); };
  try {
    const auto found = find_model_files(path);
    events_.post(found);
    if (found) events_.post(opener_(*found, options_, progress));
  } catch (const std::exception& error) {  // std::bad_alloc, say: it ends the load, not the prompt
    events_.post(Result<std::unique_ptr<Decoder>>(fail(ErrorKind::io, error.what())));
  }
}

}  // namespace bitctl
