#include "chat/loader.h"

#include <exception>

#include "chat/memory_check.h"

namespace bitctl {

Loader::~Loader() {
  if (thread_.joinable()) thread_.join();
}

void Loader::start(const ModelChoice& choice) {
  if (thread_.joinable()) thread_.join();
  thread_ = std::thread([this, choice] { run(choice); });
}

void Loader::run(const ModelChoice& choice) {
  const auto progress = [this](uint64_t bytes, uint64_t total) {
    events_.post(BytesLoaded{bytes, total});
    return true;
  };
  try {
    const auto found = find_model_files(choice, options_.base_model);
    events_.post(found);
    if (!found) return;
    const auto fits = check_memory(bytes_of(found->weights), memory_room(), options_.map);
    if (!fits) return events_.post(Result<std::unique_ptr<Decoder>>(tl::unexpected(fits.error())));
    if (!fits->empty()) events_.post(LoadWarning{*fits});
    events_.post(opener_(*found, options_, progress));
  } catch (const std::exception& error) {  // std::bad_alloc, say: it ends the load, not the prompt
    events_.post(Result<std::unique_ptr<Decoder>>(fail(ErrorKind::io, error.what())));
  }
}

}  // namespace bitctl
