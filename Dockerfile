# One image for every service; docker-compose.yml says which module each container runs.
FROM python:3.11-slim
WORKDIR /opt/helenite
COPY pyproject.toml README.md LICENSE ./
COPY helenite helenite
COPY webdav webdav
COPY syncagent syncagent
RUN pip install --no-cache-dir '.[api]' \
 && useradd --system --uid 10001 helenite \
 && install -d -o helenite /data
USER helenite
VOLUME /data
CMD ["python", "-m", "webdav"]
