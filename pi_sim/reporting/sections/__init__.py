"""The sections of the report page: each takes findings and returns Markdown, empty where there is nothing to say."""
