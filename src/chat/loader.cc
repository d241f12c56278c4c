#include "chat/loader.h"

#include <exception>

#include "chat/memory_check.h"

namespace bitctl {

bool is_last(const LoaderEvent& event) {
  const auto* found = std::get_if<Result<ModelFiles>>(&event);
  return std::holds_alternative<OnlyOnHub>(event) ||
         std::holds_alternative<Result<std::unique_ptr<Decoder>>>(event) || (found != nullptr && !*found);
}

Loader::~Loader() {
  stop();
  if (thread_.joinable()) thread_.join();
}

void Loader::start(const ModelChoice& choice) {
  if (thread_.joinable()) thread_.join();
  stop_ = false;
  thread_ = std::thread([this, choice] { run(choice); });
}

void Loader::run(const ModelChoice& choice) {
  const auto progress = [this](uint64_t bytes, uint64_t total) {
    if (!stop_) events_.post(BytesLoaded{bytes, total});
    return !stop_;
  };
  try {
    const auto found = find_model_files(choice, options_.base_model);
    if (!found && found.error().kind == ErrorKind::not_found)
      if (const auto name = name_on_hub(choice)) return events_.post(OnlyOnHub{*name, found.error().message});
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
