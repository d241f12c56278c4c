// Filling a stage: the folder in which a step is put together before it gets its name.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_ops.h"
#include "base/result.h"

namespace bitctl {

// A file to be written: both parts start on a page of memory and may be read up to the next page border. The
// header has whole pages, unless there is no data.
struct StageFile {
  std::string name;
  std::string_view header;
  std::string_view data;
};

struct StageWork {
  // Sees each file's data in order, before it is written: `end` bytes of file number `file` come now at the
  // latest. Never called by two threads at once; what it costs is hidden behind another block's way to the
  // disk.
  std::function<void(size_t file, uint64_t end)> look;
  // Whether somebody trains beside us: then one worker of the lowest priority writes, else two of ours. Asked
  // before each block, from any thread. Null: nobody does.
  std::function<bool()> quiet;
};

// Nothing is durable before sync(); whatever fails before condemns the whole stage.
class Stage {
 public:
  Stage(std::string path, FileOps& ops);
  ~Stage();  // closes what is open; the folder stays
  Stage(const Stage&) = delete;

  // Creates the files, allocates them (a full disk is told before the first byte), and writes them past the
  // page cache in blocks of 4 MiB; where the file system has no O_DIRECT, through it and out of it again.
  Status write(const std::vector<StageFile>& files, const StageWork& work = {});

  // A hard link to the file at `standing`, in the place of a copy, where the disk holds there what `file` is:
  // all of it is read past the page cache and compared, since what is bad in it would be bad in every step
  // that shares it. `file` is number 0 of the work. An error says why it is to be written; Error::damaged
  // where other bytes are there. Nothing of it is in the stage then.
  Status link(const StageFile& file, const std::string& standing, const StageWork& work = {});

  // Every file in the order of writing, then the folder. One journal commit carries them all: what follows
  // the first fsync finds its part done.
  Status sync();

 private:
  struct File;
  struct Block;
  class Blocks;

  static void add_blocks(File& file, const StageFile& from, size_t number, std::vector<Block>& list);
  Status work_off(std::vector<Block> list, const StageWork& work,
                  const std::function<Status(const Block&)>& handle);
  Status create(const StageFile& file);
  Status open_standing(const StageFile& file, const std::string& standing);
  Status write_block(const Block& block);
  Status write_out(File& file, const Block& block);
  Status compare_block(const Block& block);
  Status set_buffered(File& file);

  std::string path_;
  FileOps& ops_;
  std::vector<std::unique_ptr<File>> files_;
};

// A small file: created new, written, fsynced, closed.
Status write_new_file(const std::string& path, std::string_view content, FileOps& ops);

// A copy of `text` that starts on a page border and may be read up to the next one.
class PageCopy {
 public:
  explicit PageCopy(std::string_view text);
  ~PageCopy();
  PageCopy(PageCopy&& other) noexcept : PageCopy() { swap(other); }
  PageCopy& operator=(PageCopy&& other) noexcept { return swap(other), *this; }
  std::string_view view() const { return {data_, size_}; }

 private:
  PageCopy() = default;
  void swap(PageCopy& other) noexcept;

  char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace bitctl
