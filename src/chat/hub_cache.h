// The Hugging Face cache of this user: what huggingface_hub has downloaded. Read, never written.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace bitctl {

// $HF_HUB_CACHE, else $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
std::string hub_cache_folder();

// "org/name" or "name", as the hub allows them.
bool may_be_hub_name(std::string_view name);

// The folder that the cache keeps for that model.
std::optional<std::string> find_hub_model(const std::string& name);

// In that folder, the snapshot that refs/main names; Error::not_found and Error::damaged say what stands in
// the way. Whether the snapshot is whole is not looked at.
Result<std::string> find_hub_snapshot(const std::string& model);

}  // namespace bitctl
