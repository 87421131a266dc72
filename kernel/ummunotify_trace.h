/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tracepoints of ummunotify; `file` tells the open files of a process apart. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM ummunotify

#if !defined(UMMUNOTIFY_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define UMMUNOTIFY_TRACE_H

#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(ummunotify_watch_class,
	TP_PROTO(const void *file, u64 cookie, unsigned long start,
		 unsigned long last),
	TP_ARGS(file, cookie, start, last),
	TP_STRUCT__entry(
		__field(const void *, file)
		__field(u64, cookie)
		__field(unsigned long, start)
		__field(unsigned long, last)
	),
	TP_fast_assign(
		__entry->file = file;
		__entry->cookie = cookie;
		__entry->start = start;
		__entry->last = last;
	),
	TP_printk("file=%p cookie=0x%llx range=0x%lx-0x%lx", __entry->file,
		  __entry->cookie, __entry->start, __entry->last)
);

/* A watch was made, ended, armed again. */
DEFINE_EVENT(ummunotify_watch_class, ummunotify_watch,
	TP_PROTO(const void *file, u64 cookie, unsigned long start,
		 unsigned long last),
	TP_ARGS(file, cookie, start, last));

DEFINE_EVENT(ummunotify_watch_class, ummunotify_unwatch,
	TP_PROTO(const void *file, u64 cookie, unsigned long start,
		 unsigned long last),
	TP_ARGS(file, cookie, start, last));

DEFINE_EVENT(ummunotify_watch_class, ummunotify_rearm,
	TP_PROTO(const void *file, u64 cookie, unsigned long start,
		 unsigned long last),
	TP_ARGS(file, cookie, start, last));

/* A report was made for a watch. */
DEFINE_EVENT(ummunotify_watch_class, ummunotify_report,
	TP_PROTO(const void *file, u64 cookie, unsigned long start,
		 unsigned long last),
	TP_ARGS(file, cookie, start, last));

/* The kernel invalidated a range; at_end: by the end of it, for late watches. */
TRACE_EVENT(ummunotify_invalidate,
	TP_PROTO(const void *file, unsigned long start, unsigned long end,
		 u32 kind, bool at_end, unsigned int hits, u64 generation),
	TP_ARGS(file, start, end, kind, at_end, hits, generation),
	TP_STRUCT__entry(
		__field(const void *, file)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(u32, kind)
		__field(bool, at_end)
		__field(unsigned int, hits)
		__field(u64, generation)
	),
	TP_fast_assign(
		__entry->file = file;
		__entry->start = start;
		__entry->end = end;
		__entry->kind = kind;
		__entry->at_end = at_end;
		__entry->hits = hits;
		__entry->generation = generation;
	),
	TP_printk("file=%p range=0x%lx-0x%lx kind=0x%x%s hits=%u generation=%llu",
		  __entry->file, __entry->start, __entry->end, __entry->kind,
		  __entry->at_end ? " at_end" : "", __entry->hits,
		  __entry->generation)
);

#endif /* UMMUNOTIFY_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE ummunotify_trace
#include <trace/define_trace.h>
