// From what the user named to the files of a model: a .safetensors file with config.json and tokenizer.json
// beside it, a folder that holds them (in several parts, where model.safetensors.index.json names them), a
// run (its finished model, else its newest step) by folder, id or prefix, or a name in the Hugging Face
// cache. Wherever a model may be, a LoRA adapter may be, too.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace bitctl {

struct ModelChoice {
  std::string path;              // empty: the newest finished run here, else the newest with a checkpoint
  std::optional<uint64_t> step;  // of a run: this checkpoint
  bool newest_step = false;      // of a run: its newest checkpoint, also where it has finished
  std::string other_than = {};  // the folder whose model answers already: Error::invalid if it is found again

  bool operator==(const ModelChoice&) const = default;
};

struct ModelFiles {
  std::string name;                  // for people
  std::vector<std::string> weights;  // the .safetensors file, or all parts of it
  std::string folder;                // holds config.json, tokenizer.json and the rest
  std::string run = {};              // the folder of the run that they belong to; empty: of none
  // Of a LoRA adapter, its folder: adapter_config.json, and adapter_model.safetensors where its tensors are
  // not among `weights`. All the others are then its base's.
  std::string adapter = {};

  // Where tokenizer.json is: the adapter's own goes before its base's.
  std::string text_folder() const;
};

// Error::not_found where nothing is at that path, Error::invalid where it is no model, Error::damaged where
// the index is none; the message says what is missing, or where was looked. Reads folders and the index only;
// the files are opened by whoever uses them. `base_model`, named like a model, is what an adapter goes on;
// where it is empty, adapter_config.json names the base.
Result<ModelFiles> find_model_files(const ModelChoice& choice, const std::string& base_model = {});

// The name under which the Hugging Face hub may have a model that find_model_files() did not find: "org/name"
// where nothing here is named so, or whatever the cache has begun to hold. A word that may be a mistyped run,
// and a path into a folder that is here, stay on this machine.
std::optional<std::string> name_on_hub(const ModelChoice& choice);

}  // namespace bitctl
