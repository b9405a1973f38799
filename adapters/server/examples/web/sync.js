// A collection that stays in sync, by level 1 of the protocol (core/PROTOCOL.md, section 4): what others
// write is pushed, and what is written without a connection goes out with the next one.
export class Collection {
  constructor(url, name, onChange) {
    Object.assign(this, { url, name, onChange, records: new Map(), waiting: [], online: false });
    this.connect();
  }

  connect() {
    const socket = new WebSocket(this.url);
    const send = (message) => socket.send(JSON.stringify({ collection: this.name, ...message }));
    let pings;
    socket.onopen = () => {
      this.online = true;
      this.waiting.splice(0).forEach(send);
      send({ type: 'subscribe' }); // from now on changes are pushed
      send({ type: 'sync' }); // and this asks for what there is
      pings = setInterval(() => socket.send('{"type":"ping"}'), 30_000);
    };
    socket.onmessage = ({ data }) => this.take(JSON.parse(data));
    socket.onclose = () => {
      clearInterval(pings);
      this.online = false;
      this.onChange();
      setTimeout(() => this.connect(), 1_000);
    };
    this.send = (message) => (this.online ? send(message) : this.waiting.push(message));
  }

  take({ type, collection, recordId, data, error }) {
    if (type === 'error') console.error(error);
    if (collection !== this.name) return;
    if (type === 'sync') this.records = new Map(data.records.map(({ id, data }) => [id, data]));
    if (type === 'insert') this.records.set(recordId, data);
    if (type === 'update') this.records.set(recordId, { ...this.records.get(recordId), ...data });
    if (type === 'delete') this.records.delete(recordId);
    this.onChange();
  }

  // A writer's own changes are not pushed to it. `type` is insert, update or delete.
  write(type, recordId, data) {
    this.take({ type, collection: this.name, recordId, data });
    this.send({ type, recordId, data });
  }
}
