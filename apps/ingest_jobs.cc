#include "apps/ingest_jobs.h"

#include "kernels/error.h"

namespace memlane {

void match_stored(std::vector<Job>& jobs, const MemoryFile& file) {
  for (Job& job : jobs) {
    for (const StoredDocument& stored : file.documents()) {
      if (stored.dropped || stored.info.text_fingerprint != job.document.text_fingerprint ||
          stored.info.tokens != job.document.ids.size())
        continue;
      job.stored = stored.info.id;
      job.stored_name = stored.info.name;
      job.complete = stored.complete;
      job.tokens_done = stored.entries();
    }
  }
}

void require_new_names(const std::vector<Job>& jobs, const MemoryFile* file) {
  for (const Job& job : jobs) {
    if (job.stored) continue;
    const std::string& name = job.document.name;
    for (const Job& other : jobs) {
      if (&other == &job || other.document.name != name || other.stored) continue;
      input_error("{}: expected one text of this name, found two; ingest one of them by itself, with another --name",
                  name);
    }
    for (const StoredDocument& stored : file != nullptr ? file->documents() : std::vector<StoredDocument>()) {
      if (stored.dropped || stored.info.name != name) continue;
      input_error(
          "{}: holds another text of the name '{}' already (document {}); give this one another --name, or drop that "
          "one with `memlane memory drop`",
          file->path().string(), name, stored.info.id);
    }
  }
}

}  // namespace memlane
