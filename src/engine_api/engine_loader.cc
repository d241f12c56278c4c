#include "engine_api/engine_loader.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <mutex>

#include "base/blocked_signals.h"

namespace bitctl {
namespace {

Result<const bitctl_engine*> open_module(const std::string& path) {
  if (::access(path.c_str(), R_OK) != 0) return fail_errno("no engine module " + path);
  const BlockedSignals blocked;
  void* module = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    const char* reason = ::dlerror();
    return fail(ErrorKind::io, fmt::format("cannot load the engine module: {}", reason ? reason : path));
  }
  const auto entry = reinterpret_cast<bitctl_engine_entry_fn>(::dlsym(module, BITCTL_ENGINE_ENTRY));
  if (entry == nullptr) return fail(ErrorKind::invalid, path + " is no engine module of bitctl");
  const bitctl_engine* engine = entry(BITCTL_ENGINE_ABI);
  if (engine == nullptr || engine->abi != BITCTL_ENGINE_ABI || engine->bytes != sizeof(bitctl_engine))
    return fail(ErrorKind::invalid,
                fmt::format("{} does not speak engine ABI {}; build it again", path, BITCTL_ENGINE_ABI));
  return engine;
}

}  // namespace

void prepare_engine_environment() {
  // About 25 µs; libgomp's own choice is some 10 ms.
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) ::setenv("GOMP_SPINCOUNT", "1000", 0);
}

Result<const bitctl_engine*> load_engine(const std::string& path) {
  static std::mutex mutex;
  static std::map<std::string, const bitctl_engine*> loaded;
  const std::lock_guard lock(mutex);
  if (const auto known = loaded.find(path); known != loaded.end()) return known->second;
  auto engine = open_module(path);
  if (engine) loaded[path] = *engine;
  return engine;
}

}  // namespace bitctl
