#include "chat/router.h"

namespace bitctl {

Routing route_prompt(const Bootstrap& state, bool no_wait) {
  if (state.is<Bootstrap::Ready>()) return {Route::local};
  if (state.is<Bootstrap::Failed>()) return {Route::explain, "load_failed"};
  if (state.is<Bootstrap::NotAvailable>()) return {Route::explain, "offline"};
  return {no_wait ? Route::explain : Route::queue, "model_not_ready"};
}

}  // namespace bitctl
