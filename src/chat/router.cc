#include "chat/router.h"

#include <fmt/format.h>

namespace bitctl {

Routing route_prompt(const Bootstrap& state, bool no_wait, bool remote) {
  if (state.is<Bootstrap::Ready>()) return {Route::local};
  if (state.is<Bootstrap::Failed>()) return {Route::explain, "load_failed"};
  if (state.is<Bootstrap::NotAvailable>()) return {Route::explain, "offline"};
  return {remote ? Route::forward : no_wait ? Route::explain : Route::queue, "model_not_ready"};
}

std::string forwarded_text(std::string_view reason, std::string_view model, std::string_view url) {
  return fmt::format("[{}: {} at {} answers]", reason, model, url);
}

}  // namespace bitctl
